from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import started
from PIL import Image

from common.augment import random_hflip, random_rotated_crop
from common.datasets import VOID, load
from common.loader import Loader
from common.metrics import ConfusionMatrix
from common.models import BasicFCN
from common.reporting import confusion, plotting
from common.reporting.confusion import confusions, plot_confusion
from common.reporting.plotting import (
    picture_grid,
    plot_augmentation,
    plot_comparison,
    plot_curves,
    predictions,
    wrapped,
)


def history(epochs):
    keys = [f"{split}_{key}" for split in ("train", "val") for key in ("loss", "miou", "pixel_accuracy")]
    return [{"epoch": i + 1, "lr": 0.1, **dict.fromkeys(keys, float("nan") if i == 2 else 0.5)} for i in range(epochs)]


@pytest.mark.parametrize("epochs", [1, 200])
def test_curves_are_drawn_for_any_number_of_epochs_and_the_best_is_marked(epochs):
    pictures = []
    for best in (0, -1):
        plot_curves(history(epochs), history(epochs)[best], Path("plots/curves.png"), "a $_title_$")  # no formula
        with Image.open("plots/curves.png") as picture:
            pictures.append(np.asarray(picture.convert("L")))
    assert pictures[0].shape[1] > 800 and pictures[0].std() > 5
    # Pixel accuracy is the same in both but for the mark.
    assert (pictures[0] != pictures[1])[-300:, : pictures[0].shape[1] // 2].any() == (epochs > 1)


def test_predictions_are_drawn_for_any_number_of_images_and_names_of_classes(voc_root):
    run = started(data_root=voc_root)
    test_set = replace(load("voc2007", 32, run)[2], classes=tuple(f"net $_price_{i}$" for i in range(21)))
    for count in (1, 99):
        figure = predictions(BasicFCN(21), [test_set], run, count)
        assert figure.get_figheight() > 2 * min(count, 7)


def test_augmentation_of_an_image_that_a_flip_cannot_change_is_drawn(voc_root):
    run = started(data_root=voc_root)
    train_set = load("voc2007", 32, run)[0].select([0])
    train_set.images.fill_(7)
    train_set.masks.fill_(VOID)
    plot_augmentation(Loader(train_set, 1, run, augment=[random_hflip, partial(random_rotated_crop, size=32)]), run)
    assert run.plot("augmentation").stat().st_size > 5000


@pytest.fixture
def figures(monkeypatch) -> list:
    """What is drawn, instead of its files."""
    drawn = []
    for module in (plotting, confusion):
        monkeypatch.setattr(module, "save", lambda figure, path: drawn.append(figure))
    return drawn


@pytest.mark.parametrize(("peak", "top"), [(1.5, None), (123_638.0, 2.0)])
def test_a_wild_curve_does_not_flatten_the_others(figures, peak, top):
    def rows(first):
        keys = [f"{split}_{key}" for split in ("train", "val") for key in ("loss", "miou", "pixel_accuracy")]
        return [{"epoch": i + 1, **dict.fromkeys(keys, loss)} for i, loss in enumerate((first, 0.5, 0.4))]

    histories, scores = {"wild": rows(peak), "tame": rows(1.0)}, {"wild": (1.0, 0.5), "tame": (2.0, 0.5)}
    plot_comparison(histories, scores, Path(), "")
    axes = figures[0].axes[0]
    if top:
        assert axes.get_ylim() == (0, top) and "wild (train) up to 123,638.0" in axes.get_title()
        assert "tame" not in axes.get_title()
    else:
        assert axes.get_ylim()[1] > peak and not axes.get_title()


def test_the_rate_of_every_group_that_has_a_name_is_drawn(figures):
    rows = [row | {"lr_decoder": 0.1} | ({"lr_encoder": 0.01} if i > 1 else {}) for i, row in enumerate(history(4))]
    plot_curves(rows, rows[0], Path(), "")
    lines = {line.get_label(): line.get_ydata() for line in figures[0].axes[3].get_lines()[:2]}
    assert lines.keys() == {"encoder", "decoder"}
    assert np.array_equal(lines["encoder"], [np.nan, np.nan, 0.01, 0.01], equal_nan=True)


def matrix_of(rows: list[list[int]]) -> ConfusionMatrix:
    matrix = ConfusionMatrix(len(rows))
    matrix.counts[:-1] = torch.tensor(rows)
    return matrix


def test_a_confusion_matrix_says_the_share_of_the_true_class_and_the_pixels_in_each_cell(figures):
    plot_confusion(matrix_of([[3, 1, 0], [1, 999, 0], [0, 0, 0]]), ["sky", "sea", "land"], Path(), "a run")
    axes = figures[0].axes[0]
    said = {text.get_position(): text.get_text() for text in axes.texts}
    assert said == {(0, 0): "75%\n3", (1, 0): "25%\n1", (0, 1): "<1%\n1", (1, 1): "100%\n999"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sky", "sea", "land (no pixel)"]


def test_of_many_classes_the_largest_confusions_are_listed(figures):
    counts = (torch.eye(150, dtype=torch.int64) * 100).tolist()
    counts[3][7], counts[9][2] = 300, 900
    plot_confusion(matrix_of(counts), [f"class {i}" for i in range(150)], Path(), "a run")
    matrix, bars = figures[0].axes
    assert not matrix.texts
    assert [label.get_text() for label in bars.get_yticklabels()] == [
        "class 9 predicted as class 2",
        "class 3 predicted as class 7",
    ]
    assert [text.get_text() for text in bars.texts] == [" 90%, 900", " 75%, 300"]


def grid(rows: int, height: int, count: int, title: str, columns: list[str]):
    """Return a drawn figure of pictures that have `count` classes."""
    mask = np.arange(height * 160, dtype=np.uint8).reshape(height, 160) % count
    row = [np.zeros((height, 160, 3), np.uint8), *[mask] * (len(columns) - 1)]
    classes, palette = [f"class {i}" for i in range(count)], [(i, i, i) for i in range(count)]
    figure = picture_grid([row] * rows, columns, title, classes, palette, [], {})
    figure.draw_without_rendering()
    return figure


LONG = "train_pets-voc2012-image_size224-pspnet-encodermobilenet_v1-epochs20-fine_tune_epochs5"


@pytest.mark.parametrize(("rows", "height", "count"), [(1, 40, 21), (1, 160, 2), (3, 160, 7)])
def test_the_title_lies_above_the_heads_and_these_above_the_pictures_however_long_they_are(rows, height, count):
    figure = grid(rows, height, count, f"{LONG}: voc2012 test", ["image", "truth", LONG])
    title, page = figure._suptitle.get_window_extent(), figure.bbox
    assert page.x0 <= title.x0 and title.x1 <= page.x1
    heads = [axes.title.get_window_extent() for axes in figure.axes[:3]]
    assert all(head.y1 <= title.y0 and head.width < 250 for head in heads)  # 2.5 inches, as a column is wide
    assert all(head.y0 >= axes.get_window_extent().y1 for head, axes in zip(heads, figure.axes, strict=False))
    assert min(axes.get_window_extent().height for axes in figure.axes) > 0.5 * 100 * height / 160
    assert "epochs20-" in wrapped(LONG, 34) and max(map(len, wrapped(LONG, 34).split("\n"))) <= 36


@pytest.mark.parametrize("count", [2, 7, 13, 22])
def test_a_legend_is_read_line_by_line_and_no_entry_stands_alone(count):
    legend = grid(1, 160, count, "", ["image", "truth"]).legends[0]
    places = {text.get_text(): text.get_window_extent() for text in legend.get_texts()}
    lines = {}
    for name, place in sorted(places.items(), key=lambda item: (-round(item[1].y0), item[1].x0)):
        lines.setdefault(round(place.y0), []).append(name)
    assert [name for line in lines.values() for name in line] == [f"class {i}" for i in range(count)]
    assert min(map(len, lines.values())) > 1


def test_what_is_confused_is_listed_by_its_pixels_and_what_is_right_is_not():
    counts = torch.tensor([[9, 1, 0], [4, 0, 0], [0, 2, 9]])
    assert confusions(counts) == [(1, 0, 4), (2, 1, 2), (0, 1, 1)]
