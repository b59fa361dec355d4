"""One page with everything that was trained here: scores, curves, and the same test images through every model.

    python report.py                          # all finished runs in runs/, and their best_*.pt
    python report.py --images 12 --cases 3    # more pictures
    python report.py --images 0               # no pictures: needs neither data nor models, and takes seconds

Writes one file, report.html, which a browser opens from the disk by a double click; it can be sent as it is. In it are:

- a table of all experiments, sorted by a click on a column's head: mIoU, as the mean over runs that differ in nothing
  but their seed, beside the floor, which is the score of the most frequent class everywhere
- for each data set the curves of validation, and the IoU of each class in each run
- some test images, drawn by --seed, as each model sees them, and the worst and best ones of each model

The table is printed as Markdown, too. Start it where the trainings were started. What cannot be read or shown is named,
on the screen and in the page.
"""

import ast
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
from matplotlib.ticker import MaxNLocator
from PIL import Image

from common import checkpoint
from common.cli import cli
from common.datasets import SegmentationSet, load
from common.inference import predict
from common.labels import VOID_COLOR, colorize
from common.metrics import MIOU, PIXEL_ACCURACY
from common.reporting.plotting import draw
from common.run import Run
from common.system.errors import UserError
from common.system.files import check_writable, write_text

PUBLISHED = Path(__file__).parent / "docs" / "published.csv"  # what the original projects report
COLUMNS = ("run", "mIoU", "floor", "pixel accuracy", "data", "parameters", "minutes", "question", "published")


@dataclass
class Record:
    """What a finished run left in runs/<name>/."""

    name: str
    config: dict
    history: list[dict]
    test: dict

    @property
    def script(self) -> str:
        """The stem of the script that was run."""
        return self.config["experiment"]["script"]

    @property
    def dataset(self) -> str:
        """What was given as --dataset."""
        return self.test["dataset"]

    @property
    def key(self) -> tuple[str, str, str]:
        """By which `published` finds the run."""
        return self.script, self.dataset, self.config["experiment"].get("model", "")

    @property
    def seed(self) -> int:
        """The seed that the run was started with."""
        return self.config["experiment"]["seed"]

    @property
    def experiment(self) -> str:
        """All that can change a score but the seed, as text: the same in runs that differ in their seed alone."""
        return json.dumps({**self.config["experiment"], "seed": None}, sort_keys=True)

    @property
    def image_miou(self) -> dict[str, float]:
        """The mean IoU of each test image that is not void throughout, by name."""
        return {name: miou for name, miou in self.test["image_miou"].items() if miou is not None}

    @property
    def data(self) -> str:
        """Data set and size, in words."""
        return f"{self.dataset} {'x'.join(map(str, self.test['image_size']))}"


def main(
    out: Path = Path("report.html"),  # file to write
    images: int = 4,  # test images of each data set that every model is shown; 0 leaves out all pictures
    cases: int = 2,  # best and worst test images of each model
    device: str = "auto",  # auto, cpu, cuda, cuda:1, mps
    data_root: Path = Path("data"),  # folder that download.py filled
    cache_dir: Path = Path(".cache"),  # folder for decoded images
    seed: int = 0,  # draws the test images that every model is shown
):
    for flag, number in {"--images": images, "--cases": cases}.items():
        if number < 0:
            raise UserError(f"{flag} {number} is not possible; give a number from 0 upwards")
    if out.suffix != ".html":
        raise UserError(f"--out {out} is no page; give it a name that ends in .html")
    check_writable(out)
    run = Run(name="report", device=device, data_root=data_root, cache_dir=cache_dir, seed=seed).prepared()
    records, problems = read_runs(Path("runs"))
    for problem in problems:
        print(f"left out: {problem}")
    if not records:
        raise UserError(
            f"{Path('runs').absolute()} holds no finished run; train one, such as python train.py --dataset shapes, "
            "and start the report in the same folder"
        )
    groups = group_by("experiment", records)
    rows = [row_of(group) for group in groups]
    markdown = "\n".join(f"| {' | '.join(line)} |" for line in [COLUMNS, ["---"] * len(COLUMNS), *map(texts, rows)])
    print(f"\n{markdown}\n")

    sections = []
    for members in group_by("dataset", records):
        dataset = members[0].dataset
        curves = f"<div class=curves>{svg(curves_of(members))}</div>"
        sections.append(
            f"<h2>{html.escape(dataset)}</h2><h3>Curves</h3>{curves}<h3>IoU of each class</h3>{heat(members)}"
        )
        if images:
            sections.append(gallery(dataset, members, images, cases, run))
    page = string.Template((Path(__file__).parent / "common" / "reporting" / "report.html").read_text(encoding="utf-8"))
    notes = "".join(f"<p class=note>Left out: {html.escape(problem)}</p>" for problem in problems)
    text = page.substitute(
        table=table(rows), sections="".join(sections), markdown=html.escape(markdown), notes=notes, runs=len(records)
    )
    write_text(out, text)
    print(f"see {out} ({len(text) / 2**20:.1f} MiB), {len(records)} runs of {len(groups)} experiments")


def read_runs(folder: Path) -> tuple[list[Record], list[str]]:
    """Return what every finished run below `folder` left, and a sentence for each that cannot be read."""
    records, problems = [], []
    for path in sorted(folder.glob("*/test.json")):
        try:
            config, history, test = (
                (path.parent / name).read_text(encoding="utf-8") for name in ("config.json", "history.csv", "test.json")
            )
            keys, *values = (line.split(",") for line in history.splitlines())
            history = [dict(zip(keys, map(float, row), strict=True)) for row in values]
            record = Record(path.parent.name, json.loads(config), history, json.loads(test))
            check(record)
            records.append(record)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, SyntaxError) as error:
            problems.append(f"{path.parent} cannot be read ({type(error).__name__}: {error})")
    return records, problems


def check(record: Record) -> None:
    """Make what the page shows of a run, in small; whatever that raises, the record is not whole."""
    row_of([record]), heat([record]), html.escape(record.dataset), record.experiment
    [(row["epoch"], row["val_miou"], row["val_loss"]) for row in record.history]
    [f"{miou:.2f}" for miou in record.image_miou.values()]


def group_by(key: str, records: list[Record]) -> list[list[Record]]:
    """Return the records that have the property `key` in common together, in the order in which each first occurs."""
    groups = {}
    for record in records:
        groups.setdefault(getattr(record, key), []).append(record)
    return list(groups.values())


def title(group: list[Record]) -> str:
    """Return what an experiment is called: the name of its only run, or that of its first without the seed."""
    return group[0].name.removesuffix(f"-s{group[0].seed}") if len(group) > 1 else group[0].name


def row_of(group: list[Record]) -> list[tuple[str, float | str]]:
    """Return the table's row of an experiment, each cell as text and as what it is sorted by; means over its runs."""
    first, name = group[0], title(group)
    scores, accuracies = ([r.test["scores"][key] for r in group] for key in (MIOU, PIXEL_ACCURACY))
    miou, accuracy, floor = np.mean(scores), np.mean(accuracies), first.test["floor"][MIOU]
    runs = "seeds" if len({r.seed for r in group}) == len(group) else "runs"
    spread = f" ± {np.std(scores, ddof=1):.3f} ({len(group)} {runs})" if len(group) > 1 else ""
    minutes = np.mean([sum(row["seconds"] for row in r.history) / 60 for r in group])
    parameters, count = first.test["parameters"], first.test["images"]
    return [
        (name, name),
        (f"{miou:.3f}{spread}", miou),
        (f"{floor:.3f}", floor),
        (f"{accuracy:.3f}", accuracy),
        (f"{first.data}, {count} test image{'s' * (count != 1)}", first.data),
        (f"{parameters / 1e6:.2f} M", parameters),
        (f"{minutes:.1f}", minutes),
        (question(first.script), first.script),
        (found := published().get(first.key, ""), found),
    ]


@functools.cache
def published() -> dict[tuple[str, str, str], str]:
    """Return what the original projects report, by script, data set and --model."""
    with open(PUBLISHED, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return {(row["script"], row["dataset"], row["model"]): f"{row['score']}: {row['of what']}" for row in rows}


def question(script: str) -> str:
    """Return the question that a script of this repository asks: the first line of its docstring."""
    path = Path(__file__).with_name(f"{script}.py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"), path.name)) if path.is_file() else None
    return text.splitlines()[0] if text else ""


def texts(row: list[tuple[str, float | str]]) -> list[str]:
    """Return what a row of the table shows, with nothing in it that Markdown would take for a column."""
    return [text.replace("|", r"\|") for text, _ in row]


def table(rows: list) -> str:
    """Return the table of results; its columns are sorted by a click on their head."""
    head = "".join(f"<th scope=col aria-sort=none><button>{name}</button></th>" for name in COLUMNS)
    body = ""
    for row in rows:
        cells = (f"<td data-value='{html.escape(str(value))}'>{html.escape(text)}</td>" for text, value in row)
        body += f"<tr>{''.join(cells)}</tr>"
    return f"<div class=wide><table id=results><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def curves_of(records: list[Record]) -> Figure:
    """Return a figure of every run's validation mIoU and loss; the runs of an experiment share its colour."""
    groups = group_by("experiment", records)
    figure = Figure(figsize=(10, 4.2 + 0.22 * len(groups)), layout="constrained")
    panels = figure.subplots(1, 2)
    for number, group in enumerate(groups):
        style = {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3], "linewidth": 1.5}
        for record in group:
            label = textwrap.fill(title(group), 130) if record is group[0] else None
            epochs = [row["epoch"] for row in record.history]
            marker = "o" if len(epochs) < 30 else None  # a single epoch is no line
            for axes, key in zip(panels, ("val_miou", "val_loss"), strict=True):
                values = [row[key] for row in record.history]
                axes.plot(epochs, values, label=label, marker=marker, markersize=3, **style)
    for axes, label in zip(panels, ("mIoU", "loss"), strict=True):
        axes.set(xlabel="epoch", ylabel=f"{label} (validation)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower left", fontsize=8, frameon=False)
    return figure


def heat(records: list[Record]) -> str:
    """Return the table of IoU by run and class, each cell coloured by its value."""
    classes = list(dict.fromkeys(name for record in records for name in record.test["iou"]))
    head = "".join(f"<th scope=col><span>{html.escape(name)}</span></th>" for name in classes)
    lines = []
    for record in records:
        cells = []
        for name in classes:
            iou = record.test["iou"].get(name)
            shade = f' style="--iou:{iou:.3f}"' if iou is not None else ""
            cells.append(f"<td{shade}>{'' if iou is None else f'{iou:.2f}'}</td>")
        lines.append(f"<tr><th scope=row>{html.escape(record.name)}</th>{''.join(cells)}</tr>")
    body = f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f"<div class=wide><table class=heat>{body}</table></div>"


def gallery(dataset: str, records: list[Record], images: int, cases: int, run: Run) -> str:
    """Return the same test images as every model of `dataset` sees them, and each model's best and worst."""
    shown, problems = models_of(dataset, records, run)
    parts = [f"<p class=note>No pictures {html.escape(problem)}</p>" for problem in problems]
    for problem in problems:
        print(f"no pictures {problem}")
    if not shown:
        return "".join(parts)
    largest = max((data for _, _, data in shown), key=lambda data: data.image_size[0] * data.image_size[1])
    parts.append(f"<h3>The same test images</h3>{legend(largest)}")
    for index in draw(largest, run.seed, images):
        cells = [picture(largest, index, largest.masks[index].numpy(), "truth")]
        for record, model, data in shown:
            prediction = predict(model, data.sample(index)[1], data.image_size, run)
            cells.append(picture(largest, index, prediction, record.name))
        parts.append(f"<div class=pictures>{''.join(cells)}</div>")
    for record, model, data in shown if cases else ():
        mious = record.image_miou
        order = sorted(mious, key=mious.get)
        parts.append(f"<h3>Worst and best of {html.escape(record.name)}</h3><div class=pictures>")
        for name in [*order[:cases], *order[-cases:]] if len(order) > 2 * cases else order:
            index = data.names.index(name)
            prediction = predict(model, data.sample(index)[1], data.image_size, run)
            parts.append(picture(data, index, prediction, f"{name}: {mious[name]:.2f}"))
        parts.append("</div>")
    return "".join(parts)


def models_of(dataset: str, records: list[Record], run: Run) -> tuple[list[tuple], list[str]]:
    """Return record, model and test set of each run whose model can be shown, and what keeps others from it."""
    found, sets, problems = [], {}, []
    for record in records:
        path = Path(f"best_{record.name}.pt")
        if not path.exists():
            continue
        try:
            model, metadata = checkpoint.load_model(path)
        except UserError as error:
            problems.append(f"by {record.name}: {error}")
            continue
        size = tuple(metadata["image_size"])
        try:
            if size not in sets:
                sets[size] = load(dataset, size, run)[2]
        except UserError as error:
            return [], [f"of {dataset}: {error}"]
        now = {"classes": list(sets[size].classes), "test images": sorted(sets[size].names)}
        then = {"classes": metadata["classes"], "test images": sorted(record.test["image_miou"])}
        if changed := [what for what in now if now[what] != then[what]]:
            what = " and ".join(changed)
            problems.append(f"by {record.name}: the {what} of {dataset} are others now than it had; train it again")
        else:
            found.append((record, model, sets[size]))
    if not found and not problems:
        problems = [f"of {dataset}: none of its best_*.pt is here"]
    return found, problems


def picture(data: SegmentationSet, index: int, mask: np.ndarray, caption: str) -> str:
    """Return an image of `data` with `mask` (H, W) uint8, of any size, laid over it; background shows the image."""
    colors = Image.fromarray(colorize(mask, data.palette))
    opaque = (mask > 0) | (data.classes[0] != "background")
    colors.putalpha(Image.fromarray(np.uint8(255 * opaque)))
    image = data.sample(index)[1]
    return (
        f"<figure><div><img alt='{html.escape(data.names[index])}' src='{encoded(image, 'JPEG')}'>"
        f"<img class=mask alt='' src='{encoded(colors, 'PNG')}'></div>"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def legend(data: SegmentationSet) -> str:
    """Return the names and colours of the classes, and of void."""
    colors = [*zip(data.classes, data.palette, strict=True), ("void", VOID_COLOR)]
    chips = (f"<li><i style='background:rgb{color}'></i>{html.escape(name)}" for name, color in colors)
    return f"<ul class=legend>{''.join(chips)}</ul>"


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
