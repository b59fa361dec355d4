import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED, needs_shared, write_voc
from PIL import Image

from common.cli import cli
from tools import check


@pytest.fixture
def data(tmp_path) -> Path:
    """Thirty images of 0 and 1, of which a third each is to train on, to validate on and to test on."""
    folder = tmp_path / "photos"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(30):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(folder / f"images/{i:02}.png")
        mask = np.zeros((20, 30), np.uint8)
        mask[:, : 5 + i % 7] = 1
        Image.fromarray(mask).save(folder / f"masks/{i:02}.png")
    for number, split in enumerate(("train", "val", "test")):
        (folder / f"{split}.txt").write_text("".join(f"{i:02}\n" for i in range(10 * number, 10 * number + 10)))
    (folder / "classes.txt").write_text("sky\ntree\n")
    return folder


def run(dataset: object, capsys, *flags: str) -> tuple[int, str]:
    """Return the exit status and what tools/check.py prints."""
    with pytest.raises(SystemExit) as end:
        cli(check.main, [str(dataset), *flags])
    return end.value.code, capsys.readouterr().out


def test_sound_data_ends_with_a_table_and_status_0(data, capsys):
    status, out = run(data, capsys)
    assert status == 0 and "30 samples, 0 problems, 0 to look at" in out
    share = np.mean([(5 + i % 7) / 30 for i in range(10)])
    assert f"{share:.2%}        10" in next(line for line in out.splitlines() if line.startswith("tree"))


def test_the_generated_scenes_are_sound(few_shapes, capsys):
    assert ", 0 problems" in run("shapes", capsys)[1]


def test_all_problems_are_told_at_once_by_kind_with_their_number(data, capsys):
    (data / "images/03.png").write_bytes((data / "images/03.png").read_bytes()[:500])
    Image.new("L", (30, 21)).save(data / "masks/11.png")
    (data / "images/22.png").write_bytes(b"")
    status, out = run(data, capsys)
    assert status == 2 and "30 samples, 3 problems" in out
    assert "problems (2): files that cannot be read" in out and "images/03.png" in out and "images/22.png" in out
    assert "problems (1): masks with a different size than their image" in out and "masks/11.png is 30x21" in out


def test_values_that_are_no_class_are_counted_by_value(tmp_path, capsys):
    root = tmp_path / "data"
    masks = sorted(write_voc(root, {"train": 6, "val": 3, "test": 3}).glob("SegmentationClass/*.png"))
    for path, value in zip(masks, (77, 77, 99), strict=False):
        Image.new("L", (64, 64), value).save(path)
    mask = np.full((64, 64), 77, np.uint8)
    mask[0, :5] = 78
    Image.fromarray(mask).save(masks[0])
    status, out = run("voc2007", capsys, "--data-root", str(root), "--show", "1")
    assert status == 2 and "problems (3): values or colours without a class" in out
    assert "holds the value 77 (and 78); expected" in out and "and 2 more (--show 3 prints all)" in out


def test_all_problems_of_a_folder_are_told_at_once_beside_what_is_sound(data, capsys):
    (data / "masks/00.png").write_bytes(b"hello")
    (data / "masks/01.png").unlink()
    (data / "masks/02.png").unlink()
    Image.new("L", (30, 20), 7).save(data / "masks/12.png")
    Image.new("RGB", (30, 20), (7, 8, 9)).save(data / "masks/13.png")
    shutil.copy(data / "images/20.png", data / "images/20.jpg")
    (data / "test.txt").write_text((data / "test.txt").read_text() + "03\nnowhere\n.\n")
    status, out = run(data, capsys)
    assert status == 2 and "29 samples, 10 problems, 1 to look at" in out
    for kind in (
        "(1): values or colours that classes.txt does not list",
        "(1): files of the same name",
        "(2): lines of lists that name no image",
        "(1): images in two lists",
        "(2): images without a mask",
        "(1): files that cannot be read",
        "(2): values or colours without a class",
    ):
        assert f"problems {kind}\n" in out
    assert next(line for line in out.splitlines() if line.startswith("tree")).split()[2::2] == ["7", "8", "11"]


@pytest.mark.parametrize("palette", [False, True])
def test_lines_for_classes_txt_are_proposed_and_written_in_order(data, capsys, palette):
    file = data / "classes.txt"
    file.unlink()
    for path in (data / "masks").iterdir():
        mask = Image.fromarray(np.where(np.array(Image.open(path)) == 1, np.uint8(3), np.uint8(0)))
        mask.putpalette([200, 0, 0, 9, 9, 9, 9, 9, 9, 0, 0, 64])
        (mask if palette else mask.convert("RGB")).save(path)
    status, out = run(data, capsys)
    share = np.mean([(5 + i % 7) / 30 for i in range(30)])
    lines = [f"class0 0 0 64  # {share:.2%} of the pixels", f"class1 200 0 0  # {1 - share:.2%} of the pixels"]
    if palette:
        lines = [f"class0 200 0 0  # {1 - share:.2%} of the pixels, palette number 0"]
        lines.append(f"class1 0 0 64  # {share:.2%} of the pixels, palette number 3")
    assert status == 2 and "30 samples, 1 problem, " in out and "\n      ".join(["proposes lines", *lines]) in out
    assert not file.exists() and "classes.txt is written" in run(data, capsys, "--write-classes")[1]
    assert file.read_text().splitlines()[1:] == lines
    file.write_text(file.read_text().replace("class1", "sky"))
    status, out = run(data, capsys)
    assert status == 0 and next(line for line in out.splitlines() if line.startswith("sky")).split()[2] == "10"


def test_classes_txt_is_written_for_masks_that_need_none_and_never_over_another(data, capsys):
    with pytest.raises(SystemExit, match=r"classes\.txt exists; move it away"):
        cli(check.main, [str(data), "--write-classes"])
    assert (data / "classes.txt").read_text() == "sky\ntree\n"
    (data / "classes.txt").unlink()
    assert run(data, capsys, "--write-classes")[0] == 0
    lines = (data / "classes.txt").read_text().splitlines()
    assert [line.split("  #")[0] for line in lines[1:]] == ["class 0", "class 1"] and run(data, capsys)[0] == 0
    with pytest.raises(SystemExit, match=r"needs a folder with images/"):
        cli(check.main, ["shapes", "--write-classes"])


def test_no_classes_txt_is_written_where_the_masks_are_none(data, capsys):
    (data / "classes.txt").unlink()
    for path in (data / "masks").iterdir():
        Image.open(path).point(lambda v: 200 * v).save(path.with_suffix(".jpg"))
        path.unlink()
    status, out = run(data, capsys, "--write-classes")
    assert status == 2 and "classes.txt is not written" in out and not (data / "classes.txt").exists()


def test_few_images_and_what_pillow_takes_them_for_are_told(data, capsys):
    Image.new("CMYK", (30, 20)).save(data / "images/00.tif")
    (data / "images/00.png").unlink()
    (data / "test.txt").write_text("20\n21\n22\n23\n")
    status, out = run(data, capsys)
    assert status == 1 and "24 samples, 0 problems, 2 to look at" in out
    assert "neither RGB nor grey, and how they are read\n  CMYK, the four inks of print, converted to RGB: 1" in out
    assert "splits with few images\n  test has 4; a score on fewer than 5 images is unreliable\n" in out


def test_a_fourth_channel_of_a_tiff_is_not_lost_without_a_word(data, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    for i in range(10):
        (data / f"images/{i:02}.png").unlink()
        path = data / f"images/{i:02}.tif"
        Image.fromarray(pixels + np.uint8(i), "CMYK" if i == 9 else "RGBA").save(path)
        if i < 7:  # what Pillow calls alpha becomes a channel of no told meaning, as GDAL writes infrared beside RGB
            alpha, other = (struct.pack("<HHIHH", 338, 3, 1, value, 0) for value in (2, 0))  # the tag ExtraSamples
            assert path.read_bytes().count(alpha) == 1
            path.write_bytes(path.read_bytes().replace(alpha, other))
    status, out = run(data, capsys)
    assert status == 1 and "30 samples, 0 problems, 3 to look at" in out
    assert "  RGB with a fourth channel; the fourth is dropped: 7, such as train 00\n" in out
    assert "  RGB with transparency; the transparency is dropped: 2, such as train 07\n" in out
    assert "  CMYK, the four inks of print, converted to RGB: 1, such as train 09\n" in out


def test_what_a_training_would_take_but_should_not_get_has_status_1(data, capsys):
    shutil.copy(data / "images/00.png", data / "images/10.png")
    shutil.copy(data / "images/01.png", data / "images/02.png")
    for i in range(20, 30):
        Image.new("L", (30, 20), 255 if i == 25 else 0).save(data / f"masks/{i}.png")
    status, out = run(data, capsys)
    assert status == 1
    assert "(1): images in two splits\n  train 00 = val 10" in out
    assert "(1): images that exist twice\n  train 01 = train 02" in out
    assert "(1): masks with only void pixels\n  test 25" in out
    assert "(1): classes that a split lacks\n  test has no pixel of tree" in out


def test_a_test_without_masks_is_a_note_and_its_images_are_looked_at_all_the_same(data, capsys):
    for i in range(20, 30):
        (data / f"masks/{i}.png").unlink()
    status, out = run(data, capsys)
    assert status == 0 and "note: the 10 images of test.txt have no masks" in out
    shutil.copy(data / "images/00.png", data / "images/20.png")
    status, out = run(data, capsys)
    assert status == 1 and "(1): images in two splits\n  train 00 = test 20" in out


def test_images_that_exif_turns_upside_down_and_their_masks_not_are_named(data, capsys):
    for name, value in (("images/01", 3), ("images/02", 3), ("masks/02", 3)):
        picture = Image.open(data / f"{name}.png")
        (exif := picture.getexif())[0x0112] = value
        picture.save(data / f"{name}.png", exif=exif)
    status, out = run(data, capsys)
    assert status == 1 and "(1): images that EXIF turns without their masks\n  train 01\n" in out


def test_data_that_cannot_be_listed_has_status_2(tmp_path, capsys):
    status, out = run("voc2007", capsys, "--data-root", str(tmp_path))
    assert status == 2 and "nothing could be read" in out and "train.txt is missing" in out


def test_no_classes_are_written_for_a_folder_without_masks(tmp_path, capsys):
    status, out = run(tmp_path, capsys, "--write-classes")
    assert status == 2 and "not written: there are no classes" in out and not (tmp_path / "classes.txt").exists()


@needs_shared
def test_the_real_drinks_can_be_used(capsys):
    status, out = run("drinks", capsys, "--data-root", str(SHARED / "data"))
    assert status == 1 and "240 samples, 0 problems, 3 to look at" in out
    assert "(3): masks with only background\n  train 0000352.jpg\n  train 0000552.jpg" in out
