"""Folders that are splits: images/train with masks/train, or train/images with train/masks."""

import shutil
from pathlib import Path

import pytest
from conftest import started, write_folder

import train
from common.cli import cli
from common.datasets import load
from common.datasets.folder import folder
from common.run import Run
from common.system.errors import UserError
from tools import check, predict, score


def move(root: Path, folders: dict[str, list[int]], nested: bool = False) -> Path:
    """Move images and masks by their numbers into folders; nested, these have images/ and masks/ in them."""
    for name, numbers in folders.items():
        for kind, suffix in (("images", "jpg"), ("masks", "png")):
            place = root / name / kind if nested else root / kind / name
            place.mkdir(parents=True)
            for number in numbers:
                (root / kind / f"{number}.{suffix}").rename(place / f"{number}.{suffix}")
    if nested:
        (root / "images").rmdir()
        (root / "masks").rmdir()
    return root


@pytest.fixture
def photos(tmp_path):
    return write_folder(tmp_path / "photos")


def numbers_in(photos, **settings) -> list[list[int]]:
    """Return the numbers of the images to train on, to validate on and to test on."""
    splits = folder(photos, Path("cache"), **settings).splits
    return [sorted(int(Path(name).name) for name, *_ in splits[split]) for split in ("train", "val", "test")]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "valid", "TESTING"), ("a", "b", "c")])
def test_folders_of_the_usual_names_are_the_splits(photos, nested, names):
    parts = [[0, 1, 2, 3], [4], [5, 6, 7]]
    move(photos, dict(zip(names, parts, strict=True)), nested)
    if names[0] != "a":
        assert numbers_in(photos) == parts
    elif nested:
        with pytest.raises(
            UserError, match=r"images is missing: \S*photos holds a/images/ \(4 \.jpg\), .*; try `python"
        ):
            folder(photos, Path("cache"))
    else:
        assert numbers_in(photos) != parts  # drawn, as folders of other names are places or films


@pytest.mark.parametrize("nested", [False, True])
def test_such_a_folder_trains_predicts_its_test_images_alone_and_is_scored(photos, nested, without_pictures):
    move(photos, {"train": [0, 1, 2, 3], "val": [4], "test": [5, 6, 7]}, nested)
    train.main(str(photos), 32, 1, run=Run(device="cpu", name="own"))
    images, masks = (photos / "test" / kind if nested else photos / kind / "test" for kind in ("images", "masks"))
    everything = photos if nested else photos / "images"
    out = predict.main([everything], split="test", device="cpu")
    assert sorted(path.stem for path in (out / "masks").rglob("*.png")) == ["5", "6", "7"]
    scored = predict.main([images], score=str(masks), out="scored", device="cpu")
    assert score.main(scored / "masks", masks)["masks"] == 3
    if not nested:
        predict.main([everything], split="test", score=str(photos / "masks"), out="both", device="cpu")


@pytest.mark.parametrize("test", ["val", "test"])
def test_of_two_folders_one_is_the_test_as_with_two_lists(photos, test, capsys):
    move(photos, {"train": [0, 1, 2, 3, 4], test: [5, 6, 7]})
    train_set, val_set, test_set = load(str(photos), 16, started())
    assert len(train_set) + len(val_set) == 5 and test_set.names == [f"{test}/{number}" for number in (5, 6, 7)]
    out = capsys.readouterr().out
    assert f"the folders are the splits: 3 in {test}, 5 in train" in out or f"5 in train, 3 in {test}" in out
    assert f"the folder {test} is the test set; 1 other images are drawn for validation" in out


def test_a_train_folder_alone_is_drawn_from(photos, capsys):
    move(photos, {"train": list(range(8))})
    assert sorted(number for part in numbers_in(photos) for number in part) == list(range(8))
    load(str(photos), 16, started())
    assert "the folder train is the only split; the validation and test images" in capsys.readouterr().out


def test_images_outside_the_folders_are_refused(photos):
    move(photos, {"train": [0, 1, 2, 3], "bus": [4, 5]})
    with pytest.raises(
        UserError, match=r"images in train are a split by the folder's name, but \S*images/6\.jpg is in"
    ):
        folder(photos, Path("cache"))


def test_lists_decide_unless_they_contradict_the_folders(photos):
    move(photos, {"train": [0, 1, 2, 3], "test": [4, 5, 6, 7]})
    (photos / "train.txt").write_text("train/0\ntrain/1\n")
    (photos / "val.txt").write_text("train/2\n")
    with pytest.raises(UserError, match=r"val\.txt names train/2, which lies in the folder train; move the lists"):
        folder(photos, Path("cache"))
    (photos / "val.txt").unlink()
    (photos / "test.txt").write_text("test/4\n")
    train_numbers, val_numbers, test_numbers = numbers_in(photos)
    assert sorted(train_numbers + val_numbers) == [0, 1] and test_numbers == [4]


def test_a_fold_is_refused_where_folders_are_the_splits(photos):
    move(photos, {"train": [0, 1, 2, 3], "Test": [4, 5, 6, 7]})
    with pytest.raises(UserError, match=r"--fold 1/3 draws .* define them: .*Test.*; rename them"):
        folder(photos, Path("cache"), fold="1/3")


@pytest.mark.parametrize("nested", [False, True])
def test_a_test_folder_without_masks_is_predicted_and_a_training_image_without_one_is_refused(photos, nested):
    move(photos, {"train": [0, 1, 2], "val": [3], "test": [4, 5, 6, 7]}, nested)
    masks = {name: photos / name / "masks" if nested else photos / "masks" / name for name in ("train", "test")}
    shutil.rmtree(masks["test"])
    notes = folder(photos, Path("cache")).notes
    assert "the 4 images of the folder test have no masks: they can be predicted but not scored" in notes
    (masks["train"] / "1.png").unlink()
    with pytest.raises(UserError, match=rf"1\.jpg has no mask; expected {masks['train']}/1\.png"):
        folder(photos, Path("cache"))


def test_the_command_that_is_told_for_a_test_folder_without_masks_predicts_it(photos, capsys, without_pictures):
    move(photos, {"train": [0, 1, 2], "val": [3], "test": [4, 5, 6, 7]}, nested=True)
    shutil.rmtree(photos / "test/masks")
    train.main(str(photos), 32, 1, run=Run(device="cpu", name="hidden"))
    command = capsys.readouterr().out.splitlines()[-1].split("`")[1].split()
    cli(predict.main, command[3:])
    assert len(list(Path("predictions/hidden").glob("photos/masks/test/images/*.png"))) == 4


def test_split_folders_without_any_masks_are_refused_with_what_they_hold(photos):
    move(photos, {"train": [0, 1, 2, 3], "val": [4], "test": [5, 6, 7]}, nested=True)
    for name in ("train", "val", "test"):
        (photos / name / "masks").rename(photos / name / "1st_manual")
    with pytest.raises(
        UserError, match=r"images is missing: \S*photos holds test/1st_manual/ \(3 \.png\), test/images/"
    ):
        folder(photos, Path("cache"))


def test_check_names_an_image_that_lies_in_two_split_folders(photos, capsys):
    move(photos, {"train": [0, 1, 2], "val": [3], "test": [4, 5, 6, 7]})
    shutil.copy(photos / "images/train/0.jpg", photos / "images/val/0.jpg")
    shutil.copy(photos / "masks/train/0.png", photos / "masks/val/0.png")
    with pytest.raises(SystemExit) as end:
        cli(check.main, [str(photos)])
    assert end.value.code == 1 and "images in two splits\n  train train/0 = val val/0" in capsys.readouterr().out
