"""One page with everything that was trained here: scores, curves, and the same test images through every model.

    python report.py                          # all finished runs in runs/, and their best_*.pt
    python report.py --images 12 --cases 3    # more pictures
    python report.py --images 0               # no pictures: needs neither data nor models, and takes seconds

Writes one file, report.html, for a browser; it can be sent as it is. In it are:

- a table of all experiments: mIoU, as the mean over runs that differ in nothing but their seed, beside the floor, which
  is the score of the most frequent class everywhere; printed as Markdown, too
- for each data set the curves of validation, and the IoU of each class in each run
- some test images, drawn by --seed, as each model sees them, and the worst and best ones of each model

Start it where the trainings were started.
"""

import base64
import csv
import functools
import html
import io
import json
import string
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from common import checkpoint
from common.cli import cli
from common.datasets import SegmentationSet, load
from common.history import read_history
from common.inference import predict
from common.labels import VOID_COLOR, colorize
from common.metrics import MIOU, PIXEL_ACCURACY
from common.reporting.plotting import draw, plot_by_epoch
from common.reporting.results import question, table
from common.run import Run
from common.system.errors import UserError
from common.system.files import write_text

PUBLISHED = Path(__file__).parent / "docs" / "published.csv"  # what the original projects report
COLUMNS = ("run", "mIoU", "floor", "pixel accuracy", "loss", "data", "parameters", "minutes", "question", "published")


@dataclass
class Record:
    """What a finished run left in runs/<name>/."""

    name: str
    settings: dict  # script, seed, precision and the script's flags
    history: list[dict[str, float]]
    test: dict
    fingerprints: dict  # of the script's text, the model's file and the images

    @property
    def dataset(self) -> str:
        """What was given as --dataset."""
        return self.test["dataset"]

    @property
    def experiment(self) -> str:
        """All that can change a score but the seed, as text: the same in runs that differ in their seed alone."""
        prints = {key: value for key, value in self.fingerprints.items() if key != "common"}
        return json.dumps([{**self.settings, "seed": None}, prints], sort_keys=True)


def main(
    out: Path = Path("report.html"),  # file to write
    images: int = 4,  # test images of each data set that every model is shown; 0 leaves out all pictures
    cases: int = 2,  # best and worst test images of each model
    device: str = "auto",  # auto, cpu, cuda, cuda:1, mps
    data_root: Path = Path("data"),  # folder that download.py filled
    cache_dir: Path = Path(".cache"),  # folder for decoded images
    seed: int = 0,  # draws the test images that every model is shown
):
    if min(images, cases) < 0:
        raise UserError("--images and --cases must be numbers from 0 upwards")
    run = Run(name="report", device=device, data_root=data_root, cache_dir=cache_dir, seed=seed).prepared()
    records, problems = read_runs(Path("runs"))
    for problem in problems:
        print(f"left out: {problem}")
    if not records:
        raise UserError(
            f"{Path('runs').absolute()} holds no finished run; train one, and start the report in the same folder"
        )
    groups = group_by("experiment", records)
    rows = [row_of(group) for group in groups]
    columns = COLUMNS[: -1 if not any(row[-1][1] for row in rows) else None]  # without "published" if nothing is
    rows = [row[: len(columns)] for row in rows]
    markdown = table([list(columns), *([text.replace("|", r"\|") for text, _ in row] for row in rows)])
    print(f"\n{markdown}\n")

    sections = []
    for members in group_by("dataset", records):
        sections.append(f"<h2>{html.escape(members[0].dataset)}</h2>")
        sections.append(f"<h3>Curves</h3><div class=curves>{svg(curves_of(members))}</div>")
        sections.append(f"<h3>IoU of each class</h3>{heat(members)}")
        if images:
            sections.append(gallery(members, images, cases, run))
    template = Path(__file__).parent / "common" / "reporting" / "report.html"
    text = string.Template(template.read_text("utf-8")).substitute(
        table=results_table(columns, rows),
        sections="".join(sections),
        markdown=html.escape(markdown),
        notes="".join(f"<p class=note>Left out: {html.escape(problem)}</p>" for problem in problems),
        runs=len(records),
    )
    write_text(out, text)
    print(f"see {out} ({len(text) / 2**20:.1f} MiB), {len(records)} runs of {len(groups)} experiments")


def read_runs(folder: Path) -> tuple[list[Record], list[str]]:
    """Return what every finished run below `folder` left, and a sentence for each that cannot be read."""
    records, problems = [], []
    for path in sorted(test.parent for test in folder.glob("*/test.json")):
        try:
            config, test = (json.loads((path / name).read_text("utf-8")) for name in ("config.json", "test.json"))
            prints = config.get("fingerprints", {})
            records.append(Record(path.name, config["experiment"], read_history(path), test, prints))
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"{path} cannot be read ({type(error).__name__}: {error})")
    return records, problems


def group_by(key: str, records: list[Record]) -> list[list[Record]]:
    """Return the records that have the property `key` in common together, in the order in which each first occurs."""
    groups = {}
    for record in records:
        groups.setdefault(getattr(record, key), []).append(record)
    return list(groups.values())


def title(group: list[Record]) -> str:
    """Return what an experiment is called: the name of its only run, or that of its first without the seed."""
    return group[0].name.removesuffix(f"-s{group[0].settings['seed']}") if len(group) > 1 else group[0].name


def row_of(group: list[Record]) -> list[tuple[str, float | str]]:
    """Return the table's row of an experiment, each cell as text and as what it is sorted by; means over its runs."""
    first, name, test = group[0], title(group), group[0].test
    scores, accuracies = ([r.test["scores"][key] for r in group] for key in (MIOU, PIXEL_ACCURACY))
    miou, accuracy, floor = np.mean(scores), np.mean(accuracies), test["floor"][MIOU]
    loss = np.mean([r.test["loss"] for r in group])
    runs = "seeds" if len({r.settings["seed"] for r in group}) == len(group) else "runs"
    spread = f" ± {np.std(scores, ddof=1):.3f} ({len(group)} {runs})" if len(group) > 1 else ""
    minutes = np.mean([sum(row["seconds"] for row in r.history) / 60 for r in group])
    script, data = first.settings["script"], f"{first.dataset} {'x'.join(map(str, test['image_size']))}"
    reported = published().get((script, first.dataset, first.settings.get("model", "")), "")
    return [
        (name, name),
        (f"{miou:.3f}{spread}", miou),
        (f"{floor:.3f}", floor),
        (f"{accuracy:.3f}", accuracy),
        (f"{loss:.3f}", loss),
        (f"{data}, {test['images']} test images", data),
        (f"{test['parameters'] / 1e6:.2f} M", test["parameters"]),
        (f"{minutes:.1f}", minutes),
        (question(script), script),
        (reported, reported),
    ]


@functools.cache
def published() -> dict[tuple[str, str, str], str]:
    """Return what the original projects report, by script, data set and --model."""
    with open(PUBLISHED, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return {(row["script"], row["dataset"], row["model"]): f"{row['score']}: {row['of what']}" for row in rows}


def results_table(columns: tuple, rows: list) -> str:
    """Return the table of results; its columns are sorted by a click on their head."""
    head = "".join(f"<th scope=col aria-sort=none><button>{name}</button></th>" for name in columns)
    body = ""
    for row in rows:
        cells = (f"<td data-value='{html.escape(str(value))}'>{html.escape(text)}</td>" for text, value in row)
        body += f"<tr>{''.join(cells)}</tr>"
    return f"<div class=wide><table id=results><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def curves_of(records: list[Record]) -> Figure:
    """Return a figure of every run's validation mIoU, accuracy and loss; the runs of an experiment share its colour."""
    groups = group_by("experiment", records)
    figure = Figure(figsize=(13, 4.2 + 0.22 * len(groups)), layout="constrained")
    panels = figure.subplots(1, 3)
    labels = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "loss": "loss"}
    for axes, (key, label) in zip(panels, labels.items(), strict=True):
        for number, group in enumerate(groups):
            style = {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3], "linewidth": 1.5}
            for record in group:
                label_of_run = textwrap.fill(title(group), 130) if record is group[0] else None
                plot_by_epoch(axes, record.history, f"val_{key}", label=label_of_run, **style)
        axes.set_ylabel(f"{label} (validation)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", fontsize=8, frameon=False)
    return figure


def heat(records: list[Record]) -> str:
    """Return the table of IoU by run and class, each cell coloured by its value."""
    classes = list(dict.fromkeys(name for record in records for name in record.test["iou"]))
    head = "".join(f"<th scope=col><span>{html.escape(name)}</span></th>" for name in classes)
    body = ""
    for record in records:
        ious = (record.test["iou"].get(name) for name in classes)
        cells = ("<td></td>" if iou is None else f'<td style="--iou:{iou:.3f}">{iou:.2f}</td>' for iou in ious)
        body += f"<tr><th scope=row>{html.escape(record.name)}</th>{''.join(cells)}</tr>"
    head = f"<thead><tr><td></td>{head}</tr></thead>"
    return f"<div class=wide><table class=heat>{head}<tbody>{body}</tbody></table></div>"


def gallery(records: list[Record], images: int, cases: int, run: Run) -> str:
    """Return the same test images as every model of a data set sees them, and each model's best and worst."""
    models, problems = models_of(records, run)
    print("".join(f"no pictures {problem}\n" for problem in problems), end="")
    parts = [f"<p class=note>No pictures {html.escape(problem)}</p>" for problem in problems]
    if not models:
        return "".join(parts)

    def predicted(model: nn.Module, size: tuple[int, int], data: SegmentationSet, index: int, caption: str) -> str:
        return picture(data, index, predict(model, data.sample(index)[1], size, run), caption)

    largest = max((data for _, _, data in models), key=lambda data: data.image_size)
    colors = [*zip(largest.classes, largest.palette, strict=True), ("void", VOID_COLOR)]
    chips = (f"<li><i style='background:rgb{color}'></i>{html.escape(name)}" for name, color in colors)
    parts.append(f"<h3>The same test images</h3><ul class=legend>{''.join(chips)}</ul>")
    for index in draw(largest, run.seed, images):
        cells = [picture(largest, index, largest.masks[index].numpy(), "truth")]
        cells += [predicted(model, data.image_size, largest, index, record.name) for record, model, data in models]
        parts.append(f"<div class=pictures>{''.join(cells)}</div>")
    for record, model, data in models if cases else ():
        mious = {name: miou for name, miou in record.test["image_miou"].items() if miou is not None}  # None: all void
        order = sorted(mious, key=mious.get)
        names = [*order[:cases], *order[-cases:]] if len(order) > 2 * cases else order
        shown = ((data.names.index(name), f"{name}: {mious[name]:.2f}") for name in names)
        cells = (predicted(model, data.image_size, data, index, caption) for index, caption in shown)
        parts.append(f"<h3>Worst and best of {html.escape(record.name)}</h3>")
        parts.append(f"<div class=pictures>{''.join(cells)}</div>")
    return "".join(parts)


def models_of(records: list[Record], run: Run) -> tuple[list[tuple], list[str]]:
    """Return record, model and test set of each run whose model can be shown, and what keeps others from it."""
    found, sets, problems, dataset = [], {}, [], records[0].dataset
    for record in records:
        path = Path(f"best_{record.name}.pt")
        if not path.exists():
            continue
        try:
            model, metadata = checkpoint.load_model(path)
            size = tuple(metadata["image_size"])
            data = sets[size] = sets.get(size) or load(dataset, size, run)[2]
        except UserError as error:
            problems.append(f"by {record.name}: {error}")
            continue
        if list(data.classes) == metadata["classes"] and set(data.names) == set(record.test["image_miou"]):
            found.append((record, model, data))
        else:
            problems.append(f"by {record.name}: classes or test images of {dataset} are others now; train it again")
    return found, problems or ([] if found else [f"of {dataset}: none of its best_*.pt is here"])


def picture(data: SegmentationSet, index: int, mask: np.ndarray, caption: str) -> str:
    """Return an image of `data` with `mask` (H, W) uint8 laid over it; background shows the image."""
    colors = Image.fromarray(colorize(mask, data.palette))
    opaque = (mask > 0) | (data.classes[0] != "background")
    colors.putalpha(Image.fromarray(np.uint8(255 * opaque)))
    image = data.sample(index)[1]
    return (
        f"<figure><div><img alt='{html.escape(data.names[index])}' src='{encoded(image, 'JPEG')}'>"
        f"<img class=mask alt='' src='{encoded(colors, 'PNG')}'></div>"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def svg(figure: Figure) -> str:
    """Return a figure as SVG to stand in a page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def encoded(image: Image.Image, kind: str) -> str:
    """Return a picture as an address that holds it."""
    file = io.BytesIO()
    image.save(file, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


if __name__ == "__main__":
    cli(main)
