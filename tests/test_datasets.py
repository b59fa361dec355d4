import os

import numpy as np
import pytest
import torch
from conftest import SHARED, needs_shared, started, write_palette_mask, write_voc
from PIL import Image

from common.datasets import VOID, load
from common.datasets.reading import read_mask
from common.datasets.voc import CLASSES, LABEL_MAP, PALETTE, voc2012
from common.labels import colorize
from common.system.errors import UserError


def load_voc(root, size=32, dataset="voc2007"):
    return load(dataset, size, started(data_root=root))


def paths(root):
    folder = root / "VOCdevkit" / "VOC2007"
    return folder / "JPEGImages" / "000003.jpg", folder / "SegmentationClass" / "000003.png"


def test_the_palette_is_vocs():
    assert PALETTE[1] == (128, 0, 0) and PALETTE[8] == (64, 0, 0) and PALETTE[20] == (0, 64, 128)
    assert len(PALETTE) == len(CLASSES) == 21 and len(set(PALETTE)) == 21


def test_a_palette_mask_keeps_its_class_numbers(voc_root):
    # Mistake 1 of public solutions: to_tensor divides a mask by 255, and every class becomes background.
    train, val, test = load_voc(voc_root, size=64)
    assert (len(train), len(val), len(test)) == (10, 6, 7)
    mask = np.array(Image.open(paths(voc_root)[1]))
    assert torch.equal(train.masks[3], torch.from_numpy(mask))
    assert {0, 1, 2, 3, VOID} <= set(train.masks.unique().tolist()) <= {0, 1, 2, 3, 4, 5, VOID}
    assert train.images.shape == (10, 3, 64, 64) and train.images.dtype == torch.uint8
    difference = train.images[3].float() - torch.from_numpy(np.array(Image.open(paths(voc_root)[0]))).permute(2, 0, 1)
    assert difference.abs().max() == 0


def test_images_and_masks_are_resized_to_any_height_and_width_and_stored_larger_where_crops_are_taken(voc_root):
    sets = load("voc2007", (24, 40), started(data_root=voc_root), train_scale=1.67)
    assert [part.image_size for part in sets] == [(40, 67), (24, 40), (24, 40)]
    assert sets[0].masks.shape == (10, 40, 67)
    assert set(sets[0].masks.unique().tolist()) <= {0, 1, 2, 3, 4, 5, VOID}  # nearest: no class is invented


def test_the_second_start_reads_no_image_and_another_size_and_a_touched_file_have_caches_of_their_own(voc_root):
    first = load_voc(voc_root)
    for path in (voc_root / "VOCdevkit").rglob("*.*g"):  # same size and time, other content: only a reader would notice
        status = path.stat()
        path.write_bytes(b"x" * status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    for a, b in zip(first, load_voc(voc_root), strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.masks, b.masks)
    with pytest.raises(UserError, match="cannot be read"):
        load_voc(voc_root, size=16)
    os.utime(path)
    with pytest.raises(UserError, match="cannot be read"):
        load_voc(voc_root)


def test_a_damaged_cache_is_named(voc_root):
    load_voc(voc_root)
    path = next((voc_root.parent / "cwd" / ".cache").glob("voc2007-train-*")) / "images.npy"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match=r"voc2007-train-\S+ is damaged; delete it"):
        load_voc(voc_root)


def test_images_are_smoothed_when_they_shrink(voc_root):
    board = np.indices((64, 64)).sum(0) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).save(paths(voc_root)[0], format="PNG")
    image = load_voc(voc_root, size=16)[0].images[3].float()
    assert (image - 127.5).abs().max() < 16  # one pixel in four, unsmoothed, would be black or white


def rgb_mask(path, color):
    mask = np.array(PALETTE, dtype=np.uint8)[np.arange(64)[:, None] % 21 * np.ones((1, 64), dtype=int)]
    mask[5, 9] = color
    Image.fromarray(mask).save(path)


def test_an_rgb_mask_is_read_by_the_voc_palette(voc_root):
    rgb_mask(paths(voc_root)[1], (224, 224, 192))
    mask = load_voc(voc_root, size=64)[0].masks[3]
    assert mask[:21, 0].tolist() == list(range(21)) and mask[5, 9] == VOID


KINDS = {"L": "JPEG", "CMYK": "JPEG", "RGBA": "PNG", "P": "PNG", "I;16": "PNG"}


@pytest.mark.parametrize("mode", KINDS)
def test_images_of_other_kinds_are_converted_and_cut_short_they_are_named(voc_root, mode):
    path, _ = paths(voc_root)
    grey = (np.arange(64 * 64).reshape(64, 64) // 16).astype(np.uint8)
    picture = Image.fromarray(grey.astype(np.uint16) << 8) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    picture.save(path, format=KINDS[mode], quality=100)
    image = load_voc(voc_root, size=64)[0].images[3].float()
    assert (image - torch.from_numpy(grey)).abs().max() <= 4
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"000003\.jpg cannot be read"):
        load_voc(voc_root, size=64)


@pytest.mark.parametrize("seed", range(5))
def test_a_mask_of_any_size_is_read_as_it_was_written_by_numbers_or_by_colours(tmp_path, seed):
    path, rng = tmp_path / "mask.png", np.random.default_rng(seed)
    mask = rng.choice([*range(21), VOID], rng.integers(1, 40, 2)).astype(np.uint8)
    write_palette_mask(path, mask)
    assert np.array_equal(read_mask(path, LABEL_MAP), mask)
    Image.fromarray(colorize(mask, PALETTE)).save(path)
    assert np.array_equal(read_mask(path, LABEL_MAP), mask)


def test_a_photograph_and_a_mask_are_turned_as_their_exif_orientation_says_or_named(voc_root):
    image_path, mask_path = paths(voc_root)
    left = np.zeros((30, 50), dtype=np.uint8)
    left[:, :25] = 7
    for pixels, path in ((left[..., None].repeat(3, axis=2) * 30, image_path), (left, mask_path)):
        picture = Image.fromarray(pixels)
        (exif := picture.getexif())[0x0112] = 6  # to be turned by 90 degrees: what is left goes to the top
        picture.save(path, exif=exif)
    train = load_voc(voc_root, size=(50, 30))[0]
    assert (train.masks[3, :25] == 7).all() and not train.masks[3, 25:].any()
    assert train.images[3, :, :22].float().mean() > 200 and train.images[3, :, 28:].float().mean() < 10
    write_palette_mask(mask_path, np.zeros((50, 30), dtype=np.uint8))  # drawn on the upright photograph
    load_voc(voc_root)
    write_palette_mask(mask_path, np.zeros((30, 50), dtype=np.uint8))
    with pytest.raises(UserError, match=r"is 50x30 pixels but .* is 30x50; .*turned by its EXIF orientation"):
        load_voc(voc_root)


def value(number, shape=(64, 64)):
    return lambda path: write_palette_mask(path, np.full(shape, number, dtype=np.uint8))


IMAGE, MASK = "JPEGImages/000003.jpg", "SegmentationClass/000003.png"
LIST = "ImageSets/Segmentation/val.txt"
PROBLEMS = [
    (IMAGE, lambda p: p.unlink(), r"000003\.jpg is missing"),
    (MASK, lambda p: p.unlink(), r"000003\.png is missing"),
    (IMAGE, lambda p: p.write_text("hello"), r"000003\.jpg cannot be read"),
    (MASK, lambda p: p.write_bytes(p.read_bytes()[:-40]), r"000003\.png cannot be read"),
    (MASK, value(0, (64, 63)), r"000003\.png is 63x64 pixels but its image .* is 64x64; .* the size of its image$"),
    (MASK, value(38), r"000003\.png holds the value 38; expected 0\.\.20, or 255"),
    (MASK, lambda p: rgb_mask(p, (1, 2, 3)), r"000003\.png has the colour \(1, 2, 3\); no class has"),
    (LIST, lambda p: p.write_bytes(b"\xe4"), r"val\.txt is not UTF-8 text"),
    (LIST, lambda p: p.write_text("\n"), r"val\.txt is empty"),
    ("", lambda p: p.rename(p.parent / "elsewhere"), r"download\.py voc2007.*--dataset shapes"),
]


@pytest.mark.parametrize(("file", "damage", "message"), PROBLEMS)
def test_a_problem_with_the_files_is_named_in_one_sentence(voc_root, file, damage, message):
    damage(voc_root / "VOCdevkit/VOC2007" / file)
    with pytest.raises(UserError, match=message) as error:
        load_voc(voc_root)
    assert "\n" not in str(error.value)


def test_voc2012_validates_on_a_seeded_tenth_of_train_and_tests_on_val(tmp_path):
    write_voc(tmp_path, {"train": 40, "val": 5}, side=16, year="VOC2012")
    splits = voc2012(tmp_path).splits
    names = {split: [sample[0] for sample in samples] for split, samples in splits.items()}
    assert (len(names["train"]), len(names["val"]), len(names["test"])) == (36, 4, 5)
    assert not set(names["train"]) & set(names["val"])
    assert {name for part in names.values() for name in part} == {f"{i:06}" for i in range(45)}
    assert voc2012(tmp_path).splits == splits


@needs_shared
def test_the_real_voc_images_load():
    train, val, test = load("voc2007", 64, started(data_root=SHARED / "data"))
    assert (len(train), len(val), len(test)) == (60, 66, 56)
    assert train.masks.max() == VOID and 0.5 < (train.masks == 0).float().mean() < 0.9
