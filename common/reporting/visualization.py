"""Figures for SegmentationVisualization.ipynb: predictions of all trained models on the same images."""

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

MOST = 5  # models per figure
Models = list[tuple[nn.Module, dict]]  # models with their checkpoint's metadata


def load_models(paths: list[Path]) -> Models:
    """Load the checkpoints at `paths`; print a line for each, also for those that fail."""
    models = []
    for path in paths:
        try:
            models.append(load_model(path))
        except UserError as error:
            print(f"skipped: {error}")
            continue
        metadata = models[-1][1]
        print(f"{metadata['run']:50} {metadata['dataset']:10} validation mIoU {metadata['scores']['val_miou']:.3f}")
    return models


def on_test_images(models: Models, run: Run, count: int = 3) -> Iterator[Figure]:
    """Yield figures of `count` test images with predictions, for each data set and image size.

    The data root comes from the config.json of a training, or else from `run`. A missing data set is skipped with a
    message.
    """
    for dataset, size in sorted({(metadata["dataset"], tuple(metadata["image_size"])) for _, metadata in models}):
        chosen = [(m, md) for m, md in models if (md["dataset"], tuple(md["image_size"])) == (dataset, size)]
        try:
            _, _, test_set = load(dataset, size, with_data_of(chosen[0][1]["run"], run))
        except UserError as error:
            print(f"no figure for {dataset}: {error}")
            continue
        samples = [test_set.sample(index) for index in draw(test_set, run.seed, count)]
        yield from figures(chosen, samples, run, f"{dataset} test")


def with_data_of(name: str, run: Run) -> Run:
    """Return `run` with the data root from runs/<name>/config.json, if this file exists."""
    recorded = read_json(Path("runs", name, "config.json")).get("run", {})
    return replace(run, data_root=Path(recorded.get("data_root", run.data_root))).prepared()


def on_photographs(models: Models, paths: list[str], run: Run) -> Iterator[Figure]:
    """Yield figures of photographs with predictions; models with the same classes share a figure."""
    samples: list[tuple[str, Image.Image, None]] = [(Path(path).name, read_image(Path(path)), None) for path in paths]
    for classes in sorted({tuple(metadata["classes"]) for _, metadata in models}) if samples else ():
        yield from figures([m for m in models if tuple(m[1]["classes"]) == classes], samples, run, "your photographs")


def figures(models: Models, samples: list, run: Run, title: str) -> Iterator[Figure]:
    """Yield figures with at most `MOST` of `models`, which all have the same classes."""
    for start in range(0, len(models), MOST):
        columns = {md["run"]: (model, md["image_size"]) for model, md in models[start : start + MOST]}
        metadata = models[0][1]
        yield side_by_side(columns, samples, metadata["classes"], metadata["palette"], run, title)
