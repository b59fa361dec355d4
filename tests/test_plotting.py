from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import started
from PIL import Image

from common.augment import random_hflip, random_rotated_crop
from common.datasets import VOID, load
from common.loader import Loader
from common.models import BasicFCN
from common.reporting import plotting
from common.reporting.plotting import plot_augmentation, plot_comparison, plot_curves, predictions


def history(epochs):
    keys = [f"{split}_{key}" for split in ("train", "val") for key in ("loss", "miou", "pixel_accuracy")]
    return [
        {"epoch": i + 1, "stage": 1, "lr": 0.1, **dict.fromkeys(keys, float("nan") if i == 2 else 0.5)}
        for i in range(epochs)
    ]


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
    plot_augmentation(Loader(train_set, 1, run, augment=[random_hflip, random_rotated_crop]), run)
    assert run.plot("augmentation").stat().st_size > 5000


@pytest.fixture
def figures(monkeypatch) -> list:
    """What is drawn, instead of its files."""
    drawn = []
    monkeypatch.setattr(plotting, "save", lambda figure, path: drawn.append(figure))
    return drawn


@pytest.mark.parametrize(("peak", "top"), [(1.5, None), (123_638.0, 2.0)])
def test_a_wild_curve_does_not_flatten_the_others(figures, peak, top):
    def rows(first):
        keys = [f"{split}_{key}" for split in ("train", "val") for key in ("loss", "miou", "pixel_accuracy")]
        return [{"epoch": i + 1, "stage": 1, **dict.fromkeys(keys, loss)} for i, loss in enumerate((first, 0.5, 0.4))]

    results = {name: {"scores": {"mIoU": 0.5}} for name in ("wild", "tame")}
    histories, speeds = {"wild": rows(peak), "tame": rows(1.0)}, {"wild": 1.0, "tame": 2.0}
    plot_comparison(results, {"wild": {}, "tame": {}}, histories, speeds, Path(), "")
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
