import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DRINKS_SIZE, SHARED, box, needs_shared, polygon, started, write_drinks, write_project
from matplotlib.path import Path as Outline

import train_drinks
from common import checkpoint
from common.datasets import load
from common.datasets.drinks import CLASSES, PALETTE, drinks, rasterize
from common.errors import UserError
from common.run import Run

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


def test_the_colours_are_far_apart():
    for i, color in enumerate(PALETTE):
        assert min(np.abs(np.subtract(color, other)).max() for other in PALETTE[:i] + PALETTE[i + 1 :]) > 140


@pytest.mark.parametrize("seed", range(20))
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


@pytest.mark.parametrize("seed", range(10))
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


def test_a_moved_corner_renews_the_cache(folder):
    name = "0000020.jpg"
    for right in (20, 21):
        write_project(folder / "segmentation_test.json", {name: [box(0, 0, right, 9)]})
        assert load_drinks(folder)[2].masks[0, 5].sum() == right + 1


def test_coordinates_between_pixels_are_rounded(folder):
    write_project(folder / "segmentation_test.json", {"0000020.jpg": [box(1.6, 0.2, 8.4, 4.9, 1)]})
    mask = load_drinks(folder)[2].masks[0]
    assert mask[:6, 2:9].all() and mask.sum() == 6 * 7


def test_the_photographs_may_be_resized_to_any_height_and_width(folder):
    train, _, _ = load_drinks(folder, size=(12, 16))
    assert train.image_size == (12, 16) and set(train.masks.unique().tolist()) == {0, 1, 2, 3}


BAD_REGIONS = {
    "two points": (polygon([(0, 0), (5, 5)]), "is a polygon with 2 points; it needs at least 3"),
    "no point": (polygon([(0, 0)]) | {"shape_attributes": {"name": "polygon", "all_points_x": [], "all_points_y": []}},
                 "is a polygon with 0 points"),
    "class 4": (box(0, 0, 5, 5, "4"), "has the class '4'; expected Name 1 to 3"),
    "class 0": (box(0, 0, 5, 5, "0"), "has the class '0'"),
    "class can": (box(0, 0, 5, 5, "can"), "has the class 'can'"),
    "no class": (box(0, 0, 5, 5) | {"region_attributes": {}}, "has the class None"),
    "a word": (polygon([(0, 0), ("1", 5), (9, 9)]), "has the coordinate '1', which is no number"),
    "a truth": (polygon([(0, 0), (True, 5), (9, 9)]), "has the coordinate True"),
    "not a number": (polygon([(0, 0), (float("nan"), 5), (9, 9)]), "has the coordinate nan"),
    "far away": (polygon([(0, 0), (10**400, 5), (9, 9)]), "has the coordinate 1000"),
    "x without y": (polygon([(0, 0), (5, 5), (9, 9)]) | {"shape_attributes": {
        "name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2]}}, "has not as many x as y"),
    "no list": ({"shape_attributes": {"name": "polygon", "all_points_x": 5}, "region_attributes": {}},
                "has not as many x as y"),
    "circle": ({"shape_attributes": {"name": "circle", "cx": 1}, "region_attributes": {"Name": "1"}},
               "is a 'circle'; only polygons are read"),
    "no shape": ({"region_attributes": {"Name": "1"}}, "has no shape or no attributes"),
    "no region": (7, "has no shape or no attributes"),
}  # fmt: skip


@pytest.mark.parametrize("problem", BAD_REGIONS)
def test_a_region_that_cannot_be_used_is_named_with_file_and_image(folder, problem):
    region, message = BAD_REGIONS[problem]
    write_project(folder / "segmentation_train.json", {"0000000.jpg": [], "0000001.jpg": [box(0, 0, 5, 5), region]})
    with pytest.raises(UserError) as error:
        load_drinks(folder)
    assert f"segmentation_train.json: region 2 of 0000001.jpg {message}" in str(error.value)
    assert "\n" not in str(error.value)


ENTRY = {"filename": "0000000.jpg", "size": 1, "regions": []}
BAD_FILES = {
    "no JSON": ("hello", "segmentation_test.json is no JSON"),
    "empty": ("", "segmentation_test.json is no JSON"),
    "cut short": ('{"_via_img_metadata": {', "segmentation_test.json is no JSON"),
    "binary": (b"\xff\xfe\x00\xd8", "segmentation_test.json is no JSON"),
    "too deep": ("[" * 100_000, "segmentation_test.json is no JSON"),
    "a list": ([1, 2], "segmentation_test.json is no VIA project"),
    "another project": ({"images": [], "annotations": []}, "segmentation_test.json is no VIA project"),
    "metadata of another kind": ({"_via_img_metadata": [1]}, "segmentation_test.json is no VIA project"),
    "an entry without name": ({"_via_img_metadata": {"a": ENTRY, "b": {"regions": []}}}, "entry 2 names no image"),
    "an entry of another kind": ({"_via_img_metadata": {"a": 3}}, "entry 1 names no image"),
    "regions of VIA 1": ({"_via_img_metadata": {"a": ENTRY | {"regions": {"0": 1}}}}, "has no list of regions"),
    "an image twice": ({"_via_img_metadata": {"a": ENTRY, "b": ENTRY}}, "lists 0000000.jpg twice"),
    "an entry twice": (f'{{"_via_img_metadata": {{"a1": {json.dumps(ENTRY)}, "a1": 3}}}}', "lists 'a1' twice"),
    "no image": ({"_via_img_metadata": {}}, "segmentation_test.json lists no image"),
    "a name without end": ({"_via_img_metadata": {"a": ENTRY | {"filename": 300 * "é"}}}, "entry 1 names no image"),
    "a missing image": ({"_via_img_metadata": {"a": ENTRY | {"filename": "gone.jpg"}}}, "gone.jpg, which is not in"),
}  # fmt: skip


@pytest.mark.parametrize("problem", BAD_FILES)
def test_a_file_that_is_no_via_project_is_named_in_one_sentence(folder, problem):
    content, message = BAD_FILES[problem]
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    (folder / "segmentation_test.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        load_drinks(folder)
    assert message in str(error.value) and "\n" not in str(error.value)


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


@needs_shared
def test_the_real_drinks_load():
    train, val, test = load("drinks", (120, 160), started(data_root=SHARED / "data"))
    assert (len(train), len(val), len(test)) == (180, 20, 40)
    for part in (train, val, test):
        share = part.masks.flatten().bincount(minlength=4) / part.masks.numel()
        assert 0.8 < share[0] < 0.9 and (share[1:] > 0.02).all()  # background, then three objects of similar size
