"""Masks and images that are not read as a user might think: each has a warning or a sentence with its true reason."""

import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import started, write_folder, write_voc
from PIL import Image, ImageFilter, ImageOps

from common.cli import cli
from common.datasets import load, reading
from common.datasets.folder import folder
from common.datasets.mask_contents import look_through, object_numbers, scan, smoothed
from common.system.errors import UserError
from tools import check

SIDE = 48


@pytest.fixture
def photos(tmp_path):
    return write_folder(tmp_path / "photos", 6)


def mask_files(photos) -> list[Path]:
    return sorted((photos / "masks").iterdir())


def rewrite(photos, picture_of) -> None:
    """Write what `picture_of(number)` returns as the mask of each image."""
    for number, path in enumerate(mask_files(photos)):
        picture_of(number).save(path)


def boxes(count: int) -> np.ndarray:
    """Return a mask with the numbers 1 to `count`, a box each."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for i in range(count):
        mask[4 + i : 30, 2 + 9 * i : 9 + 9 * i] = i + 1
    return mask


def refused(photos) -> str:
    """Return the sentence by which a training refuses the folder."""
    with pytest.raises(UserError) as error:
        load(str(photos), SIDE, started())
    assert "\n" not in str(error.value)
    return str(error.value)


def checked(photos, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        cli(check.main, [str(photos)])
    return end.value.code, capsys.readouterr().out


# object numbers


def test_numbers_that_count_objects_are_warned_of_in_training_and_check(photos, capsys):
    rewrite(photos, lambda number: Image.fromarray(boxes(number % 4)))
    warning = (
        "the numbers in the masks look like objects, not classes: each mask counts its regions, 1, 2, ..., and has"
    )
    way_on = f"up to 3; `python -m tools.import_labels {photos} {photos}-imported --binary` makes them one class"
    load(str(photos), SIDE, started())
    assert f"{photos}: warning: {warning} {way_on}" in capsys.readouterr().out
    status, out = checked(photos, capsys)
    assert status == 1 and f"{warning} {way_on}" in out
    (photos / "classes.txt").write_text("background\nclass 1\nclass 2\nclass 3\n")  # as an import names them
    assert warning in checked(photos, capsys)[1]
    (photos / "classes.txt").write_text("background\nhead\nbody\ntail\n")
    assert warning not in checked(photos, capsys)[1]


@pytest.mark.parametrize(
    "masks",
    [
        [np.where(boxes(4) % 2 == 0, boxes(4) // 2, 1), boxes(3), boxes(2)],  # a class has several regions
        [boxes(3), boxes(3), boxes(3)],  # as many in each
        [boxes(3), boxes(1), np.where(boxes(4) == 2, 2, 0)],  # a gap
        [boxes(3) + 1, boxes(2) + 1, boxes(1) + 1],  # no background
        [boxes(1), boxes(2), boxes(2)],  # such as an organ, and a tumour in some
    ],
)
def test_classes_are_not_taken_for_objects(tmp_path, masks):
    masks = [*masks, np.where(boxes(4) % 2 == 0, boxes(4) // 2, 1)] if masks[0].max() == 2 else masks
    for i, mask in enumerate(masks):
        Image.fromarray(mask.astype(np.uint8)).save(tmp_path / f"{i}.png")
    assert not object_numbers([tmp_path / f"{i}.png" for i in range(len(masks))])


def test_the_generated_scenes_and_voc_are_not_taken_for_objects(tmp_path):
    write_folder(tmp_path / "shapes", 30)
    write_voc(tmp_path, {"train": 30})
    for masks in ("shapes/masks", "VOCdevkit/VOC2007/SegmentationClass"):
        assert not look_through(sorted((tmp_path / masks).iterdir()), False).objects


def test_numbers_of_more_than_255_objects_are_refused_with_the_flag_that_joins_them(photos):
    rewrite(photos, lambda number: Image.fromarray(boxes(2).astype(np.uint16) * 200))
    assert (
        "0.png holds the number 400, and classes are whole numbers from 0 to 255; `python -m tools.import_labels"
        in (refused(photos))
    )


def test_numbers_of_objects_with_gaps_are_refused_with_that_flag_beside_the_lines_of_classes(photos):
    rewrite(photos, lambda number: Image.fromarray(np.where(boxes(4) > 0, boxes(4) * 7 + number, 0).astype(np.uint8)))
    sentence = refused(photos)
    assert "proposes lines; if each number is an object, `python -m tools.import_labels" in sentence


def test_masks_without_any_object_are_refused_with_that_reason(photos):
    rewrite(photos, lambda number: Image.fromarray(boxes(0)))
    assert refused(photos).endswith(
        "with one name for each of 0, 1, 2, ...; `python -m tools.check "
        + f"{photos}` proposes lines; no mask shows an object"
    )


# smoothed outlines


def smooth(red=255, green=255, blue=255):
    """Return a mask of one colour on black that was made larger smoothly."""
    small = Image.fromarray(np.where(boxes(2) > 0, 255, 0).astype(np.uint8)).resize((SIDE // 2, SIDE // 2))
    large = small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return Image.merge("RGB", [large.point(lambda v, top=top: v * top // 255) for top in (red, green, blue)])


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("listed", [False, True])
def test_smoothed_masks_are_refused_with_the_flag_that_rounds_them(photos, mode, listed):
    rewrite(photos, lambda number: smooth().convert(mode))
    if listed:
        (photos / "classes.txt").write_text("background\ncell\n")
    sentence = refused(photos)
    assert "their outlines look smoothed between 0 0 0 and 255 255 255" in sentence
    assert (
        f"`python -m tools.import_labels {photos} {photos}-imported --binary` rounds each pixel to the nearer"
        in sentence
    )


@pytest.mark.parametrize(
    ("picture", "two"),
    [
        (smooth().convert("L"), (0, 0xFFFFFF)),
        (smooth().convert("L").filter(ImageFilter.GaussianBlur(3)), (0, 0xC3C3C3)),
        (smooth(255, 0, 128), (0, 0xFF0080)),
        (ImageOps.invert(smooth()), (0xFFFFFF, 0)),
        (Image.fromarray(np.array([0] * 12 + [64, 191] + [255] * 6, np.uint8).reshape(4, 5)), (0, 0xFFFFFF)),
        (Image.effect_noise((SIDE, SIDE), 60), None),  # a photograph
        (Image.fromarray(boxes(4) * np.uint8(60)), None),  # a few classes in grey
        (Image.fromarray(np.arange(SIDE, dtype=np.uint8).repeat(SIDE).reshape(SIDE, SIDE) * 3), None),  # many classes
        (Image.fromarray(np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)[boxes(3)]), None),
    ],
)
def test_smoothed_colours_are_told_from_classes(tmp_path, picture, two):
    picture.save(tmp_path / "mask.png")
    assert smoothed(look_through([tmp_path / "mask.png"], False).held) == two


# values and channels


def test_floats_that_are_whole_numbers_are_classes_and_fractions_are_refused(photos):
    rewrite(photos, lambda number: Image.fromarray(boxes(2)))
    expected = load(str(photos), SIDE, started())[0].masks
    for path in mask_files(photos):
        Image.fromarray(np.array(Image.open(path), dtype=np.float32)).save(path.with_suffix(".tif"))
        path.unlink()
    assert (load(str(photos), SIDE, started())[0].masks == expected).all() and expected.max() == 2
    Image.fromarray(np.full((SIDE, SIDE), 0.25, np.float32)).save(photos / "masks/0.tif")
    assert "0.tif holds the number 0.25, and classes are whole numbers from 0 to 255; fractions come" in refused(photos)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_masks_that_are_drawn_by_transparency_are_refused_with_that_reason(photos, mode, capsys):
    def picture(number):
        alpha = Image.fromarray(boxes(number % 2)).point(lambda v: 255 * v)  # every second mask is empty
        (white := Image.new(mode, (SIDE, SIDE), "white")).putalpha(alpha)
        return white

    rewrite(photos, picture)
    reason = "1.png has one colour, and its objects are drawn by transparency; save that channel in grey"
    assert reason in refused(photos)
    status, out = checked(photos, capsys)
    assert status == 2 and reason in out and "6 samples, 3 problems" in out and "classes.txt" not in out


def test_values_with_gaps_are_taken_as_the_greys_that_a_sentence_names(photos):
    rewrite(photos, lambda number: Image.fromarray(np.array([0, 3, 7], np.uint8)[boxes(2)]))
    (photos / "classes.txt").write_text("sky\nroad\ncar\n")
    assert "the values 3; 7 (" in (
        sentence := refused(photos)
    ) and "or with a name and its grey, such as `name 7 7 7`" in (sentence)
    (photos / "classes.txt").write_text("sky 0 0 0\nroad 3 3 3\ncar 7 7 7\n")
    assert load(str(photos), SIDE, started())[0].masks.unique().tolist() == [0, 1, 2]


# files


def test_a_damaged_mask_is_named_before_what_the_others_hold(photos, capsys):
    rewrite(photos, lambda number: Image.fromarray(boxes(2) * np.uint8(9)))
    (photos / "masks/4.png").write_bytes((photos / "masks/3.png").read_bytes()[:60])
    assert "masks/4.png cannot be read" in refused(photos)
    assert "problems (1): files that cannot be read" in checked(photos, capsys)[1]


def test_files_of_several_pages_are_warned_of_in_training_and_check(photos, capsys):
    pages = [Image.open(photos / "images/0.jpg")] * 5
    pages[0].save(photos / "images/0.tif", save_all=True, append_images=pages[1:])
    (photos / "images/0.jpg").unlink()
    rewrite(photos, lambda number: Image.fromarray(boxes(1)))
    warning = f"1 file has several pages, and only the first is read; first {photos}/images/0.tif with 5"
    load(str(photos), SIDE, started())
    assert f"warning: {warning}" in capsys.readouterr().out
    status, out = checked(photos, capsys)
    assert status == 1 and warning in out


def test_files_of_other_kinds_are_named_with_what_converts_them(photos):
    raw = photos / "images/0.dng"
    raw.write_bytes(b"raw")  # beside its JPEG
    folder(photos, Path("cache"))
    raw.rename(photos / "images/new.dng")
    assert "images holds 1 .dng files, which are not read; convert them to JPEG" in refused(photos)
    for path in (photos / "images").iterdir():
        path.rename(path.with_suffix(".HEIC"))
    assert "images holds 7 .HEIC files, which are not read; convert them to JPEG, for example with `magick" in (
        refused(photos)
    )
    shutil.rmtree(photos / "images")
    write_folder(photos.parent / "other", 6)
    shutil.copytree(photos.parent / "other/images", photos / "images")
    for path in mask_files(photos):
        np.save(path.with_suffix(".npy"), np.array(Image.open(path)))
        path.unlink()
    assert "masks holds 6 .npy files, which are not read; save each array as PNG" in refused(photos)


def test_masks_of_other_names_than_the_images_lead_to_the_command_that_pairs_them(photos):
    for path in mask_files(photos):
        path.rename(path.with_stem(f"mask_{path.stem}"))
    sentence = f"no mask has the name of an image, for example {photos}/images/0.jpg and {photos}/masks/mask_0.png; try"
    assert sentence in refused(photos)


def test_a_picture_that_is_too_large_is_named_with_its_size(photos, monkeypatch):
    monkeypatch.setattr(reading, "MAX_PIXELS", SIDE * SIDE - 1)
    expected = "0.png has 48x48 pixels, more than the limit of 2,303; cut it into tiles or make it smaller"
    assert refused(photos).startswith(f"{photos}/masks/{expected}")


def test_runs_that_start_together_look_at_the_masks_without_disturbing_each_other(tmp_path):
    write_folder(tmp_path / "photos", 12)
    masks = [(path.name, path) for path in sorted((tmp_path / "photos/masks").iterdir())]
    jobs = [(masks[:n], tmp_path / "cache", False) for n in range(1, 13) for _ in range(4)]  # four write each record
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.starmap(scan, jobs, chunksize=1)
    assert found == [scan(*job) for job in jobs] and len(list((tmp_path / "cache").iterdir())) == 12
