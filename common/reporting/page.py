"""Prepare the content of report.html: a section for all runs with the same test images."""

import csv
import io
import json
import math
import re
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from common.metrics import MIOU, PIXEL_ACCURACY
from common.reporting.confusion import MOST, confusions, percent
from common.reporting.plotting import limit_loss, plot_by_epoch
from common.reporting.results import REPOSITORY, question, say
from common.reporting.scores import duration

PUBLISHED = REPOSITORY / "docs" / "published.csv"  # scores that the original projects report
MOST_SETTINGS = 6  # columns of settings; further differences are listed below the name
CURVES = {
    "mIoU in validation": "val_miou",
    "Pixel accuracy in validation": "val_pixel_accuracy",
    "Loss in validation": "val_loss",
    "Learning rate at the epoch's start": "lr",
}
VARIED = ("seed", "fold")  # the only settings that may differ between runs of one experiment
COLORS, DASHES = 10, ("", "6 3", "1.5 2")  # line styles: matplotlib's ten colours, solid, then dashed, then dotted


@dataclass
class Record:
    """The files of one finished run in runs/<name>/."""

    name: str
    settings: dict  # script, seed, precision and the script's flags
    history: list[dict[str, float]]
    test: dict
    classes: list[dict[str, str]]  # the rows of classes.csv
    script: str  # text of the script as it was run
    tta: dict | None = None  # contents of test_tta.json
    label: str = ""  # short name, from `labels`
    pictures: list[dict] = field(default_factory=list)  # its hardest and easiest test images

    @property
    def data(self) -> str:
        """The test data in words, equal for runs with comparable scores."""
        size, fold = "x".join(map(str, self.test["image_size"])), self.settings.get("fold", "")
        folds = f"folds of {fold.partition('/')[2]}" if re.fullmatch(r"\d+/\d+", fold) else "a folder at a time"
        tested = folds if fold else f"{self.test['images']} test images"
        return f"{self.test['dataset']} at {size}, {tested}"

    @property
    def experiment(self) -> str:
        """Settings and script as text, without seed and fold: equal for all runs of one experiment."""
        settings = {key: value for key, value in self.settings.items() if key not in VARIED}
        return json.dumps([settings, self.script], sort_keys=True)

    @property
    def question(self) -> str:
        """The question in the docstring of the run's script."""
        return question(self.settings["script"])

    @property
    def texts(self) -> dict[str, str]:
        """The settings as text."""
        return {key: value if key == "fold" else text_of(value) for key, value in self.settings.items()}

    def images(self) -> list[tuple[str, float]]:
        """Return names and mIoU of the test images, the hardest first; images with only void are skipped."""
        known = [(name, miou) for name, miou in self.test["image_miou"].items() if miou is not None]
        return sorted(known, key=lambda image: image[1])

    def shares(self) -> dict[str, dict[str, float]]:
        """Return, by true and predicted class, the share of the true class; {} if the matrix is too large to show."""
        names, rows = list(self.test["iou"]), self.test["confusion"]
        shares = {}
        for name, row in zip(names, rows, strict=False) if len(rows) <= MOST else ():
            if any(row):
                shares[name] = {other: pixels / sum(row) for other, pixels in zip(names, row, strict=True)}
        return shares

    def confused(self, most: int = 10) -> list[tuple[str, str, str, int]]:
        """Return the most frequent confusions: true class, predicted class, share of the true class, pixels."""
        names, rows = list(self.test["iou"]), self.test["confusion"]
        found = confusions(torch.tensor(rows))[:most]
        return [(names[t], names[p], percent(pixels / sum(rows[t])), pixels) for t, p, pixels in found]


@dataclass
class Experiment:
    """Runs that differ only in seed or fold."""

    runs: list[Record]
    label: str = ""

    @property
    def name(self) -> str:
        """The name of the only run; for several runs, the first name without seed and fold."""
        first = self.runs[0]
        fold = f"-fold{first.settings.get('fold', '').replace('/', 'of')}"
        short = first.name.removesuffix(f"-s{first.settings['seed']}").removesuffix(fold)
        return short if len(self.runs) > 1 else first.name

    @property
    def settings(self) -> dict[str, str]:
        """The settings as text, with all seeds and folds."""
        texts = [run.texts for run in self.runs]
        return {key: ", ".join(dict.fromkeys(text[key] for text in texts)) for key in texts[0]}

    def score(self, name: str, tta: bool = False) -> tuple[str, float]:
        """Return the mean of a score over the runs: as text with its standard deviation, and as a number.

        Args:
            tta: use the scores with test-time augmentation; returns ("", 0) if one run has none.
        """
        tests = [run.tta if tta else run.test for run in self.runs]
        if None in tests:
            return "", 0.0
        scores = [test["scores"][name] for test in tests]
        mean, deviation = statistics.mean(scores), statistics.stdev(scores) if len(scores) > 1 else math.nan
        return say(mean, deviation), mean

    def iou(self, name: str) -> float | None:
        """Return the mean IoU of a class over the runs; None if no target or prediction has this class."""
        found = [iou for run in self.runs if (iou := run.test["iou"].get(name)) is not None]
        return statistics.mean(found) if found else None

    def curve(self, key: str) -> np.ndarray:
        """Return a column of history.csv, (runs, epochs), up to the last epoch that all runs have."""
        epochs = min(len(run.history) for run in self.runs)
        return np.array([[row.get(key, np.nan) for row in run.history[:epochs]] for run in self.runs])


class Section:
    """One part of the page: all runs with the same test images."""

    def __init__(self, records: list[Record]):
        self.records, self.title, self.test = records, records[0].data, records[0].test
        self.experiments = [Experiment(runs) for runs in group_by("experiment", records)]
        for part in (records, self.experiments):
            for one, label in zip(part, labels(part), strict=True):
                one.label = label
        named = all(one.name.startswith(one.settings["script"]) for one in self.experiments)
        self.shared, self.columns, self.others = compared([one.settings for one in self.experiments], named)
        self.classes = list(dict.fromkeys(name for record in records for name in record.test["iou"]))
        self.tta = any(record.tta for record in records)
        self.seeds = any(len(one.runs) > 1 for one in self.experiments)
        self.pictures: list[dict] = []  # the same images with the predictions of all models
        self.legend: list[tuple[str, tuple]] = []  # name and colour of each class
        self.problems: list[str] = []  # reasons why pictures are missing

    @property
    def head(self) -> list[str]:
        """The columns of the table."""
        settings = [key.replace("_", " ") for key in self.columns]
        return ["run", MIOU, *[f"{MIOU} with TTA"] * self.tta, PIXEL_ACCURACY, "loss", *settings, "parameters", "time"]

    def floor(self, name: str) -> float:
        """Return the score of the majority-class baseline; the mean over folds."""
        return statistics.mean(record.test["floor"][name] for record in self.records)

    def rows(self) -> list[list[tuple[str, float | str]]]:
        """Return the table's rows without the name; each cell has its text and its sort key."""
        rows = []
        for one in self.experiments:
            loss, parameters = statistics.mean(run.test["loss"] for run in one.runs), one.runs[0].test["parameters"]
            seconds = statistics.mean(sum(row["seconds"] for row in run.history) for run in one.runs)
            settings = [(text, text) for text in (one.settings.get(key, "") for key in self.columns)]
            mious = [one.score(MIOU), *[one.score(MIOU, tta=True)] * self.tta]
            rows.append([*mious, one.score(PIXEL_ACCURACY), (f"{loss:.3f}", loss), *settings])
            rows[-1] += [(f"{parameters / 1e6:.2f} M", parameters), (duration(seconds), seconds)]
        return rows

    def hardest(self) -> list[tuple[str, float]]:
        """Return names and mIoU of the test images, averaged over the runs, the hardest first."""
        found = {}
        for record in self.records:
            for name, miou in record.images():
                found.setdefault(name, []).append(miou)
        means = [(name, statistics.mean(mious)) for name, mious in found.items()]
        return sorted(means, key=lambda image: image[1])

    def published(self) -> list[str]:
        """Return a sentence for each published score that has the same definition as one of our scores."""
        with open(PUBLISHED, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["our score"]]
        found = []
        for one in self.experiments:
            for row in rows:
                if all(row[key] == one.settings.get(key, "") for key in ("script", "dataset", "model")):
                    score, ours = row["our score"], one.score(row["our score"])[0]
                    found.append(f"{score} {row['value']} ({row['measured on']}); {one.label} here: {ours}")
        return found

    def key(self) -> list[tuple[str, str, str]]:
        """Return label, colour and dashes of each experiment's line."""
        styles = [(to_hex(f"C{n % COLORS}"), DASHES[n // COLORS % len(DASHES)]) for n in range(len(self.experiments))]
        return [(one.label, *style) for one, style in zip(self.experiments, styles, strict=True)]

    def curves(self) -> dict[str, str]:
        """Return one SVG per quantity with the curves of all experiments; with seeds, the mean and a min-max band."""
        drawings = {}
        for label, key in CURVES.items():
            figure = Figure(figsize=(6, 3.4))
            axes = figure.add_axes((0.11, 0.15, 0.87, 0.76))
            for number, (one, (_, color, dash)) in enumerate(zip(self.experiments, self.key(), strict=True)):
                values = one.curve(key)
                epochs, mean = one.runs[0].history[: values.shape[1]], values.mean(0)
                rows = [{"epoch": row["epoch"], key: value} for row, value in zip(epochs, mean, strict=True)]
                style = {"linestyle": (0, tuple(map(float, dash.split())))} if dash else {}
                plot_by_epoch(axes, rows, key, color=color, linewidth=1.5, gid=f"run{number}", **style)
                if len(one.runs) > 1:
                    x = [row["epoch"] for row in rows]
                    axes.fill_between(x, values.min(0), values.max(0), color=color, alpha=0.2, lw=0, gid=f"run{number}")
            if key == "lr":
                axes.set_ylim(bottom=0)
            if key == "val_loss":
                limit_loss(axes, {record.label: record.history for record in self.records}, ["val"])
            drawings[label] = svg(figure)
        return drawings


def group_by(key: str, records: list[Record]) -> list[list[Record]]:
    """Group records by the value of their property `key`, in the order of first occurrence."""
    groups = {}
    for record in records:
        groups.setdefault(getattr(record, key), []).append(record)
    return list(groups.values())


def labels(runs: list[Record] | list[Experiment]) -> list[str]:
    """Return short, readable names: "train, lr 0.0001". Parts that all runs share are removed.

    Names from --name are not changed.
    """
    own = [run.name.startswith(run.settings["script"]) for run in runs]
    # A hyphen before a digit is a minus sign or begins a run's number; do not split there.
    parts = [re.split(r"-(?=\D)", run.name) if o else [run.name] for run, o in zip(runs, own, strict=True)]
    shared = set.intersection(*(set(part) for part, o in zip(parts, own, strict=True) if o or not any(own)))
    keys = sorted({key for run in runs for key in run.settings}, key=len, reverse=True)
    values = re.compile(rf"({'|'.join(keys)})(?=\d)")
    readable = []
    for first, *rest in parts:
        rest = [re.sub(r"^s(?=\d+$)", "seed ", part) for part in rest if part not in shared]
        readable.append(", ".join([first, *(values.sub(r"\1 ", part).replace("_", " ") for part in rest)]))
    return readable


def compared(settings: list[dict[str, str]], named: bool) -> tuple[dict[str, str], list[str], list[str]]:
    """Compare the settings of experiments; if they are `named` after their scripts, the script is no difference.

    Returns:
        The settings that all share; the columns: names of different settings that most experiments have; and, for
        each experiment, its other different settings as text.
    """
    fixed = [{name: value for name, value in one.items() if name not in VARIED} for one in settings]
    again = [fixed[: number + 1].count(one) for number, one in enumerate(fixed)]
    if max(again) > 1:  # same settings but different scripts
        settings = [one | {"version of the script": str(n)} for one, n in zip(settings, again, strict=True)]
    values = {}
    for one in settings:
        for name, value in one.items():
            values.setdefault(name, []).append(value)
    shared = {name: found[0] for name, found in values.items() if found == found[:1] * len(settings)}
    differ = [name for name, found in values.items() if len(set(found)) > 1 and not (named and name == "script")]
    columns = [name for name in differ if 2 * len(values[name]) > len(settings)][:MOST_SETTINGS]
    others = [name for name in differ if name not in columns]
    texts = (", ".join(f"{name.replace('_', ' ')} {one[name]}" for name in others if name in one) for one in settings)
    return shared, columns, list(texts)


def text_of(value: object) -> str:
    """Return a setting as people write it."""
    if isinstance(value, bool | None):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "x".join(map(str, value))
    if isinstance(value, str):
        return Path(value).name or "none"  # without the folders of this machine
    return f"{value:g}" if isinstance(value, float) else str(value)


def svg(figure: Figure) -> str:
    """Return a figure as SVG for the page: it takes the page's text colour and font, and has classes instead of ids."""
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    drawing = text.getvalue()[text.getvalue().index("<svg") :].replace("#000000", "currentColor")
    return re.sub(r'id="run', 'class="run', re.sub(r' id="[A-Za-z.\d]+_\d+"', "", drawing))


def render(sections: list[Section], problems: list[str], markdown: str) -> str:
    """Return the page as HTML."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    count = sum(len(section.records) for section in sections)
    page = environment.get_template("report.html")
    return page.render(sections=sections, problems=problems, markdown=markdown, count=count)
