"""Write one page about all finished runs: settings, scores, curves, classes and predictions.

    python -m tools.report                          # all finished runs in runs/, and their best_*.pt
    python -m tools.report --images 12 --cases 3    # more pictures
    python -m tools.report --images 0               # no pictures: takes seconds, without data and models

The page is one file, report.html, without links to other files. Runs with the same test images form a section:

- a table of all experiments with their different settings and mean scores over seeds or folds; printed as Markdown, too
- curves of mIoU, pixel accuracy, loss and learning rate, with several seeds as a band; the IoU of each class
- predictions of every model on random test images (--seed) and on the hardest ones
- details of each run, on a click: all settings, class scores, confusions, hardest and easiest images

Start it in the folder of the trainings.
"""

import base64
import csv
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from common import checkpoint
from common.cli import cli
from common.datasets import SegmentationSet, load
from common.history import read_history
from common.inference import predict
from common.labels import VOID_COLOR, colorize
from common.reporting.page import Record, Section, group_by, render
from common.reporting.plotting import draw
from common.reporting.results import table
from common.reporting.visualization import with_data_of
from common.run import Run
from common.system.errors import UserError
from common.system.files import read_json, write_text


def main(
    out: Path = Path("report.html"),  # file to write
    images: int = 4,  # number of random test images with every model's prediction; 0 for no pictures
    cases: int = 2,  # number of hardest images for all models, and of hardest and easiest ones for each model
    device: str = "auto",  # auto, cpu, cuda, cuda:1, mps
    data_root: str = "",  # folder that download.py filled, if it has moved since the runs
    cache_dir: Path = Path(".cache"),  # folder for decoded images
    seed: int = 0,  # draws the random test images
):
    if min(images, cases) < 0:
        raise UserError("--images and --cases must be numbers from 0 upwards")
    run = Run(name="report", device=device, data_root=Path(data_root), cache_dir=cache_dir, seed=seed).prepared()
    records, problems = read_runs(Path("runs"))
    for problem in problems:
        print(f"skipped: {problem}")
    if not records:
        raise UserError(
            f"{Path('runs').absolute()} holds no finished run; train one, then start the report in the same folder"
        )
    sections = [Section(members) for members in group_by("data", records)]
    markdown = "\n\n".join(map(markdown_of, sections))
    print(f"\n{markdown}\n")
    for section in sections if images else ():
        add_pictures(section, images, cases, run)
        print("".join(f"no pictures: {problem}\n" for problem in section.problems), end="")
    text = render(sections, problems, markdown)
    write_text(out, text)
    experiments = sum(len(section.experiments) for section in sections)
    print(f"see {out} ({len(text) / 2**20:.1f} MiB); finished runs: {len(records)}, experiments: {experiments}")


def read_runs(folder: Path) -> tuple[list[Record], list[str]]:
    """Return the records of all finished runs in `folder`, and a sentence for each run that cannot be read."""
    records, problems = [], []
    for path in sorted(test.parent for test in folder.glob("*/test.json")):
        try:
            config, test = (json.loads((path / name).read_text("utf-8")) for name in ("config.json", "test.json"))
            rows = list(csv.DictReader(io.StringIO((path / "classes.csv").read_text("utf-8"))))
            settings, tta = config["experiment"], read_json(path / "test_tta.json") or None
            script = (path / f"{settings['script']}.py").read_text("utf-8")
            records.append(Record(path.name, settings, read_history(path), test, rows, script, tta))
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"{path} cannot be read ({type(error).__name__}: {error})")
    return records, problems


def markdown_of(section: Section) -> str:
    """Return the title and the table of a section as Markdown, with the full names of the runs."""
    rows = [section.head]
    for one, row in zip(section.experiments, section.rows(), strict=True):
        rows.append([text.replace("|", r"\|") for text in (one.name, *(text for text, _ in row))])
    return f"{section.title}:\n\n{table(rows)}"


def add_pictures(section: Section, images: int, cases: int, run: Run) -> None:
    """Add pictures: every model's predictions to the section; hardest and easiest images to each run."""
    models, data = models_of(section, run)
    if not models:
        return

    def predicted(model: nn.Module, index: int, caption: str) -> dict:
        return picture(data, index, predict(model, data.sample(index)[1], data.image_size, run), caption)

    section.legend = [*zip(data.classes, data.palette, strict=True), ("void", VOID_COLOR)]
    shown = {data.names.index(name): f"mIoU {miou:.2f} on average" for name, miou in section.hardest()[:cases]}
    shown |= {index: "drawn at random" for index in draw(data, run.seed, images) if index not in shown}
    for index, why in shown.items():
        truth = picture(data, index, data.masks[index].numpy(), "truth")
        pictures = [truth, *(predicted(model, index, record.label) for record, model in models)]
        section.pictures.append({"name": data.names[index], "why": why, "pictures": pictures})
    for record, model in models:
        images = record.images()  # the hardest first
        for name, miou in [*images[:cases], *images[max(cases, len(images) - cases) :]]:
            record.pictures.append(predicted(model, data.names.index(name), f"{name}: {miou:.2f}"))


def models_of(section: Section, run: Run) -> tuple[list[tuple[Record, nn.Module]], SegmentationSet | None]:
    """Return runs with their models, and the test set; a problem is noted for each run without pictures."""
    found, dataset = [], section.test["dataset"]
    if "fold" in section.records[0].settings:
        section.problems.append("each fold has its own test images")
        return [], None
    records = [record for record in section.records if Path(f"best_{record.name}.pt").exists()]
    if not records:
        section.problems.append(f"there is no best_*.pt for {dataset} here")
        return [], None
    try:
        there = run if run.data_root != Path() else with_data_of(records[0].name, run)
        data = load(dataset, tuple(section.test["image_size"]), there)[2]
    except UserError as error:
        section.problems.append(str(error))
        return [], None
    for record in records:
        try:
            model, metadata = checkpoint.load_model(Path(f"best_{record.name}.pt"))
        except UserError as error:
            section.problems.append(str(error))
            continue
        if list(data.classes) == metadata["classes"] and set(data.names) == set(record.test["image_miou"]):
            found.append((record, model))
        else:
            section.problems.append(f"classes or test images of {dataset} changed since {record.name}; train it again")
    return found, data


def picture(data: SegmentationSet, index: int, mask: np.ndarray, caption: str) -> dict:
    """Return an image of `data` and `mask` (H, W) uint8 as an overlay with a transparent background class."""
    colors = Image.fromarray(colorize(mask, data.palette))
    opaque = (mask > 0) | (data.classes[0] != "background")
    colors.putalpha(Image.fromarray(np.uint8(255 * opaque)))
    image = data.sample(index)[1]
    addresses = {"image": encoded(image, "JPEG"), "mask": encoded(colors, "PNG")}
    return {"name": data.names[index], "caption": caption, **addresses}


def encoded(image: Image.Image, kind: str) -> str:
    """Return a picture as a data URL."""
    file = io.BytesIO()
    image.save(file, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


if __name__ == "__main__":
    cli(main)
