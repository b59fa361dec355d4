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
from common.datasets.drinks import CLASSES, drinks, rasterize
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
    count = rng.integers(3, 15)
    angles, radii = np.sort(rng.uniform(0, 2 * np.pi, count)), rng.uniform(5, 40, count)
    center = rng.uniform(-5, 1.1, 2) * (10, HEIGHT) if seed % 4 == 0 else rng.uniform(0, 1, 2) * (WIDTH, HEIGHT)
    corners = np.rint(center + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(int)
    mask = rasterize(((2, tuple(map(tuple, corners.tolist()))),), (WIDTH, HEIGHT)) == 2

    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)
    inside = Outline(corners).contains_points(pixels).reshape(mask.shape)
    near = np.zeros_like(inside)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = np.clip((pixels - a) @ (b - a) / max(1, (b - a) @ (b - a)), 0, 1)
        near |= (np.linalg.norm(pixels - a - along[:, None] * (b - a), axis=1) <= 1).reshape(mask.shape)
    assert np.array_equal(mask[~near], inside[~near])


@pytest.mark.parametrize("seed", range(4))
def test_a_polygon_that_leaves_the_image_is_clipped(seed):
    corners = np.random.default_rng(seed).integers(-60, 120, (5, 2))
    clipped = rasterize(((1, tuple(map(tuple, corners.tolist()))),), (WIDTH, HEIGHT))
    whole = rasterize(((1, tuple(map(tuple, (corners + 100).tolist()))),), (WIDTH + 250, HEIGHT + 250))
    assert np.array_equal(clipped, whole[100 : 100 + HEIGHT, 100 : 100 + WIDTH])


def test_of_two_that_overlap_the_later_in_the_file_is_on_top(folder):
    name = "0000020.jpg"
    both = [box(0, 0, 20, 20, "3"), box(10, 10, 30, 30, "1")]
    for regions, winner in ((both, 1), (both[::-1], 3)):
        write_project(folder / "segmentation_test.json", {name: regions})
        mask = load_drinks(folder)[2].masks[0]  # the cache is renewed as well
        assert mask[15, 15] == winner and mask[5, 5] == 3 and mask[25, 25] == 1


def test_coordinates_between_pixels_are_rounded(folder):
    write_project(folder / "segmentation_test.json", {"0000020.jpg": [box(1.6, 0.2, 8.4, 4.9, 1)]})
    mask = load_drinks(folder)[2].masks[0]
    assert mask[:6, 2:9].all() and mask.sum() == 6 * 7


CIRCLE = {"shape_attributes": {"name": "circle", "cx": 1}, "region_attributes": {"Name": "1"}}
ENTRY = {"filename": "0000000.jpg", "size": 1, "regions": []}
PROBLEMS = {
    "two points": (polygon([(0, 0), (5, 5)]), "region 1 of 0000000.jpg is a polygon with 2 points; it needs at least"),
    "class 4": (box(0, 0, 5, 5, "4"), "region 1 of 0000000.jpg has the class '4'; expected Name 1 to 3"),
    "no class": (box(0, 0, 5, 5) | {"region_attributes": {}}, "region 1 of 0000000.jpg has the class None"),
    "circle": (CIRCLE, "region 1 of 0000000.jpg is a 'circle'; only polygons are read"),
    "cut short": ('{"_via_img_metadata": {', " is no VIA project"),
    "another project": ({"images": [], "annotations": []}, " is no VIA project"),
    "regions of VIA 1": ({"_via_img_metadata": {"a": ENTRY | {"regions": {"0": 1}}}}, " is no VIA project"),
    "an image twice": ({"_via_img_metadata": {"a": ENTRY, "b": ENTRY}}, " lists 0000000.jpg twice"),
    "no image": ({"_via_img_metadata": {}}, " lists no image"),
    "a missing image": ({"_via_img_metadata": {"a": ENTRY | {"filename": "gone.jpg"}}}, "gone.jpg, which is not in"),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_what_cannot_be_used_is_named_in_one_sentence(folder, problem):
    content, message = PROBLEMS[problem]
    if "shape_attributes" in content:
        content = {"_via_img_metadata": {"a": ENTRY | {"regions": [content]}}}
    (folder / "segmentation_test.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError) as error:
        load_drinks(folder)
    assert "segmentation_test.json" in str(error.value) and message in str(error.value) and "\n" not in str(error.value)


def test_without_the_files_the_user_is_told_where_to_put_them(tmp_path):
    with pytest.raises(UserError, match=r"segmentation_train\.json is missing; python download\.py drinks tells"):
        drinks(tmp_path)


@pytest.mark.slow
def test_the_documents_settings_are_flags_of_train_drinks(folder):
    settings = {"image_size": (32, 48), "batch_size": 1, "epochs": 1, "schedule": "steps", "flip": False, "levels": 4}
    for resume in (False, True):
        run = Run(device="cpu", precision="fp32", data_root=folder.parent, name="test", resume=resume)
        result = train_drinks.main(**settings, run=run)
    assert result["images"] == 4 and len(result["floor"]) == len(result["scores"])
    state = checkpoint.load(Path("last_test.pt"))
    kernels, others = state["optimizer"]["param_groups"]
    assert (kernels["weight_decay"], others["weight_decay"]) == (2e-4, 0)
    assert len(kernels["params"]) == 58 and kernels["lr"] == 1e-3  # 9 * 6 + 1 convolutions and three shortcuts
    assert not Path("plots/test_augmentation.png").exists() and Path("plots/test_predictions.png").exists()


def test_the_books_rate_falls_in_steps():
    rates = [1e-3 * train_drinks.rate(epoch) for epoch in (0, 39, 40, 59, 60, 79, 80, 299)]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4, 1e-4, 1e-4, 5e-5, 5e-5])
