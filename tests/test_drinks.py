import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DRINKS_SIZE, box, polygon, started, write_drinks, write_project
from matplotlib.path import Path as Outline

import train_drinks
from common import checkpoint
from common.datasets import load
from common.datasets.drinks import CLASSES
from common.datasets.formats.raster import rasterize
from common.run import Run
from common.system.errors import UserError

HEIGHT, WIDTH = DRINKS_SIZE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data root's folder of 20 + 4 small photographs."""
    return write_drinks(tmp_path / "data")


def load_drinks(folder: Path, size=(HEIGHT, WIDTH)):
    return load("drinks", size, started(data_root=folder.parent))


def test_the_polygons_become_masks_and_a_tenth_is_for_validation(folder):
    train, val, test = load_drinks(folder)
    assert (len(train), len(val), len(test)) == (18, 2, 4)
    assert not set(train.names) & set(val.names) and test.names == [f"{i:07}.jpg" for i in range(20, 24)]
    assert train.classes == CLASSES and train.masks.shape == (18, HEIGHT, WIDTH)
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    expected[5:36, 4:15], expected[5:36, 19:30], expected[5:36, 34:45] = 1, 2, 3  # image 23 has three boxes
    assert torch.equal(test.masks[3], expected)
    assert not test.masks[0].any()  # image 20 has no region: it is background


@pytest.mark.parametrize("seed", range(8))
def test_a_polygon_covers_what_lies_inside_and_nothing_else(seed):
    """Against matplotlib, which knows nothing of Pillow; on the outline itself the two may differ by a pixel."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, (rng.integers(3, 15), 1)), axis=0)
    directions = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    corners = rng.uniform(0, 1, 2) * (WIDTH, HEIGHT) + rng.uniform(5, 40, (len(angles), 1)) * directions
    corners = np.rint(corners).astype(int)  # many beyond the image
    mask = rasterize(((2, tuple(map(tuple, corners.tolist()))),), (WIDTH, HEIGHT)) == 2

    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)
    inside, inner, outer = (Outline(corners).contains_points(pixels, radius=r).reshape(mask.shape) for r in (0, -1, 1))
    sure = inner == outer
    assert sure.mean() > 0.8 and np.array_equal(mask[sure], inside[sure])


def test_of_two_that_overlap_the_later_is_on_top_and_coordinates_between_pixels_are_rounded(folder):
    name = "0000020.jpg"
    both = [box(0, 0, 20, 20, "3"), box(10, 10, 30, 30, "1")]
    for regions, winner in ((both, 1), (both[::-1], 3)):
        write_project(folder / "segmentation_test.json", {name: regions})
        mask = load_drinks(folder)[2].masks[0]  # the cache is renewed as well
        assert mask[15, 15] == winner and mask[5, 5] == 3 and mask[25, 25] == 1
    write_project(folder / "segmentation_test.json", {name: [box(1.6, 0.2, 8.4, 4.9, 1)]})
    mask = load_drinks(folder)[2].masks[0]
    assert mask[:6, 2:9].all() and mask.sum() == 6 * 7


def project(entry: dict) -> dict:
    """Return a VIA project of one image, the first of the set but for what `entry` says."""
    return {"_via_img_metadata": {"a": {"filename": "0000000.jpg", "size": 1, "regions": []} | entry}}


FEW = {"regions": [polygon([(0, 0), (5, 5)])]}
LINE = {"regions": [{"shape_attributes": {"name": "polyline"}, "region_attributes": {"Name": "1"}}]}
PROBLEMS = {
    "two points": (project(FEW), "region 1 of 0000000.jpg is a polygon with 2 points; it needs at least"),
    "class 4": (project({"regions": [box(0, 0, 5, 5, "4")]}), "region 1 of 0000000.jpg has the class '4'; expected"),
    "a line": (project(LINE), "region 1 of 0000000.jpg is a polyline, which has no area"),
    "another project": ({"images": [], "annotations": []}, " is no VIA project"),
    "no image": ({"_via_img_metadata": {}}, " lists no image"),
    "a missing image": (project({"filename": "gone.jpg"}), "gone.jpg, which is not in"),
    "no file": (None, ".json is missing; get the data with `python download.py drinks`"),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_what_cannot_be_used_is_named_in_one_sentence(folder, problem):
    content, message = PROBLEMS[problem]
    (folder / "segmentation_test.json").write_text(json.dumps(content))
    if content is None:
        (folder / "segmentation_test.json").unlink()
    with pytest.raises(UserError) as error:
        load_drinks(folder)
    assert "segmentation_test.json" in str(error.value) and message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.slow
def test_the_documents_settings_are_flags_of_train_drinks(folder):
    settings = {"image_size": (32, 48), "batch_size": 1, "epochs": 1, "schedule": "steps", "flip": False, "levels": 4}
    for resume in (False, True):
        run = Run(device="cpu", precision="fp32", data_root=folder.parent, name="test", resume=resume)
        result = train_drinks.main(**settings, run=run)
    assert result["images"] == 4 and len(result["floor"]) == len(result["scores"])
    state = checkpoint.load(Path("runs/test/last.pt"))
    kernels, others = state["optimizer"]["param_groups"]
    assert (kernels["weight_decay"], others["weight_decay"]) == (2e-4, 0)
    assert len(kernels["params"]) == 58 and kernels["lr"] == 1e-3  # 9 * 6 + 1 convolutions and three shortcuts
    assert not Path("plots/test_augmentation.png").exists() and Path("plots/test_predictions.png").exists()


def test_the_books_rate_falls_in_steps():
    rates = [1e-3 * train_drinks.rate(epoch) for epoch in (0, 39, 40, 59, 60, 79, 80, 299)]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4, 1e-4, 1e-4, 5e-5, 5e-5])
