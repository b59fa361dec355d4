"""What SegmentationVisualization.ipynb shows: the same images through every trained model."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from common.checkpoint import load_model
from common.datasets import load
from common.datasets.reading import read_image
from common.reporting.plotting import draw, side_by_side
from common.run import Run
from common.system.errors import UserError
from common.system.files import read_json

MOST = 5  # models in a figure
Models = list[tuple[nn.Module, dict]]  # each with the contents of its checkpoint


def load_models(paths: list[Path]) -> Models:
    """Return the models in the checkpoints at `paths`; say which they are, and which cannot be loaded."""
    models = []
    for path in paths:
        try:
            models.append(load_model(path))
        except UserError as error:
            print(f"left out: {error}")
            continue
        metadata = models[-1][1]
        print(f"{metadata['run']:50} {metadata['dataset']:10} validation mIoU {metadata['scores']['val_miou']:.3f}")
    return models


def on_test_images(models: Models, run: Run, count: int = 3) -> Iterator[Figure]:
    """Yield figures of `count` test images of each data set and size, as its models see them.

    A set is looked for where its run had it, by the run's config.json, and else where `run` says; one that is not there
    is left out, in a sentence.
    """
    for dataset, size in sorted({(metadata["dataset"], tuple(metadata["image_size"])) for _, metadata in models}):
        chosen = [(m, md) for m, md in models if (md["dataset"], tuple(md["image_size"])) == (dataset, size)]
        try:
            _, _, test_set = load(dataset, size, with_data_of(chosen[0][1]["run"], run))
        except UserError as error:
            print(f"no figure of {dataset}: {error}")
            continue
        samples = [test_set.sample(index) for index in draw(test_set, run.seed, count)]
        yield from figures(chosen, samples, run, f"{dataset} test")


def with_data_of(name: str, run: Run) -> Run:
    """Return `run` with the data root of the run called `name`; as it is if that left no config.json."""
    recorded = read_json(Path("runs", name, "config.json")).get("run", {})
    return replace(run, data_root=Path(recorded.get("data_root", run.data_root))).prepared()


def on_photographs(models: Models, paths: list[str], run: Run) -> Iterator[Figure]:
    """Yield figures of photographs as every model sees them; models that share their classes share a figure."""
    samples: list[tuple[str, Image.Image, None]] = [(Path(path).name, read_image(Path(path)), None) for path in paths]
    for classes in sorted({tuple(metadata["classes"]) for _, metadata in models}) if samples else ():
        yield from figures([m for m in models if tuple(m[1]["classes"]) == classes], samples, run, "your photographs")


def figures(models: Models, samples: list, run: Run, title: str) -> Iterator[Figure]:
    """Yield figures of at most `MOST` models of the same classes each."""
    for start in range(0, len(models), MOST):
        columns = {md["run"]: (model, md["image_size"]) for model, md in models[start : start + MOST]}
        metadata = models[0][1]
        yield side_by_side(columns, samples, metadata["classes"], metadata["palette"], run, title)
