"""Which pictures are taken for the masks of which images: layouts of public data sets, and doubts."""

from pathlib import Path

import numpy as np
import pytest
from exports import COUNT, HEIGHT, WIDTH, photograph, picture, truth

from common.datasets.formats.recognise import recognise
from common.datasets.formats.source import Source
from common.system.errors import UserError

NUMBERS = range(1, 4)


def drawn(source: Source) -> dict[str, np.ndarray]:
    """Return the mask of each image that is found, by the image's path below the export."""
    layout, _ = recognise(source)
    found = {}
    for item in layout.read(source).items:
        mask = found[source.name(item.image)] = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        assert item.draw(mask) == []
    return found


LAYOUTS = {
    "the same names in two folders": ("Original/{}.png", "Ground Truth/{}.png"),
    "ISIC": (
        "ISIC2018_Task1-2_Training_Input/ISIC_{:07}.jpg",
        "ISIC2018_Task1_GroundTruth/ISIC_{:07}_segmentation.png",
    ),
    "CamVid": ("train/0001TP_{:06}.png", "train_labels/0001TP_{:06}_L.png"),
    "SegNet": ("train/{}.png", "trainannot/{}.png"),
    "DeepGlobe": ("train/{}_sat.jpg", "train/{}_mask.png"),
    "Cityscapes": ("leftImg8bit/val/ulm/ulm_{:06}_leftImg8bit.png", "gtFine/val/ulm/ulm_{:06}_gtFine_labelIds.png"),
    "prefixes": ("images/image_{}.png", "masks/mask_{}.png"),
    "prefixes without a mark between": ("im{}.png", "mask{}.png"),
    "Carvana": ("train/{:04}_01.jpg", "train_masks/{:04}_01_mask.gif"),
    "Potsdam": ("2_Ortho_RGB/top_potsdam_2_{}_RGB.tif", "5_Labels/top_potsdam_2_{}_label.tif"),
    "STARE": ("im{:04}.ppm", "im{:04}.ah.ppm"),
    "a folder for each image": ("{:03}/image.png", "{:03}/mask.png"),
    "a folder for each patient": ("TCGA_{}/TCGA_{}_1.tif", "TCGA_{}/TCGA_{}_1_mask.tif"),
    "masks without the images' folders": ("images/trip {}/a{}.jpg", "masks/a{1}.png"),
    "numbers of both splits": ("test/images/{}.png", "test/masks/{}.png"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_images_and_masks_of_public_sets_are_paired(name, tmp_path):
    image, mask = LAYOUTS[name]
    for i in NUMBERS:
        photograph(tmp_path / image.format(i, i), i)
        picture(tmp_path / mask.format(i, i), truth(i) // 2 * 255)
        photograph(tmp_path / "others" / f"{i + 7}.jpg", 0)
    if name == "Cityscapes":
        for i in NUMBERS:
            picture(tmp_path / mask.format(i).replace("labelIds", "color"), np.stack([truth(i) * 9] * 3, axis=2))
            picture(tmp_path / mask.format(i).replace("labelIds", "instanceIds"), truth(i).astype(np.uint16) * 1000)
    if name == "numbers of both splits":
        for i in NUMBERS:
            photograph(tmp_path / f"train/images/{i}.png", i + 3)
            picture(tmp_path / f"train/masks/{i}.png", truth(i + 3) // 2 * 255)
    found = drawn(Source(tmp_path))
    assert {image.format(i, i) for i in NUMBERS} <= found.keys()
    assert len(found) == len(NUMBERS) * (2 if name == "numbers of both splits" else 1)
    for i in NUMBERS:
        assert np.array_equal(found[image.format(i, i)], truth(i) // 2), name


def both(root: Path, first: str, second: str, image: str = "images/{}.png") -> Path:
    """Write images, and two kinds of masks."""
    for i in NUMBERS:
        photograph(root / image.format(i), i)
        picture(root / first.format(i), truth(i) // 2 * 255)
        picture(root / second.format(i), truth(i) // 1 * 100)
    return root


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ("1st_manual/{}_manual1.gif", "mask/{}_mask.gif", ("1st_manual", "mask")),
        ("images/{}_1stHO.png", "images/{}_2ndHO.png", ("1stHO", "2ndHO")),
        ("masks/{}.png", "predictions/{}.png", ("masks", "predictions")),
    ],
)
def test_two_candidates_for_the_mask_are_refused_by_name_and_settled_by_a_flag(first, second, names, tmp_path):
    path = both(tmp_path, first, second)
    source = Source(path)
    with pytest.raises(UserError) as error:
        recognise(source)[0].read(source)
    assert all(f"--masks {name}" in str(error.value) for name in names)
    found = drawn(Source(path, masks=names[0]))
    assert len(found) == 3 and all(np.array_equal(found[f"images/{i}.png"], truth(i) // 2) for i in NUMBERS)
    assert drawn(Source(path, masks=names[1]))["images/1.png"].max() == 2
    folder = str(path / first.split("/")[0])
    if names[0] in first.split("/")[0]:
        assert drawn(Source(path, str(path / "images"), folder)).keys() == found.keys()


def test_two_candidates_are_named_as_masks_though_the_images_have_few_colours(tmp_path):
    path = both(tmp_path, "1st_manual/{}_manual1.gif", "mask/{}_mask.gif")
    for i in NUMBERS:
        picture(path / f"images/{i}.png", np.full((HEIGHT, WIDTH, 3), 99, np.uint8))
    with pytest.raises(UserError, match="in 1st_manual or in mask; say which with --masks 1st_manual or --masks mask"):
        recognise(source := Source(path))[0].read(source)


def test_two_kinds_of_images_for_a_mask_are_refused_by_name(tmp_path):
    for i in NUMBERS:
        photograph(tmp_path / f"left/{i}.png", i)
        photograph(tmp_path / f"right/{i}.png", i + 3)
        picture(tmp_path / f"labels/{i}.png", truth(i))
    source = Source(tmp_path)
    with pytest.raises(UserError, match="--images left or --images right"):
        recognise(source)[0].read(source)
    assert drawn(Source(tmp_path, "right")).keys() == {f"right/{i}.png" for i in NUMBERS}


def test_overlays_beside_masks_and_pictures_elsewhere_are_neither_masks_nor_images_without_labels(tmp_path):
    for i in NUMBERS:
        photograph(tmp_path / f"images/raw/p{i}.jpg", i)
        picture(tmp_path / f"images/masks/p{i}_mask.png", truth(i))
        photograph(tmp_path / f"images/overlay/p{i}_overlay.jpg", i)
        photograph(tmp_path / f"thumbnails/{i}.jpg", i)
    source = Source(tmp_path)
    labels = recognise(source)[0].read(source)
    assert {file.parent.name for file in labels.images.files} == {"raw"} and labels.left_out == []


def test_a_second_mask_of_an_image_is_joined_to_the_first(tmp_path):
    for i in NUMBERS:
        photograph(tmp_path / f"benign/benign ({i}).png", i)
        picture(tmp_path / f"benign/benign ({i})_mask.png", truth(i, 1))
    picture(tmp_path / "benign/benign (2)_mask_1.png", 255 * np.eye(HEIGHT, WIDTH, dtype=np.uint8))
    found = drawn(Source(tmp_path))
    expected = truth(2, 1) // 255 | np.eye(HEIGHT, WIDTH, dtype=np.uint8)
    assert len(found) == 3 and np.array_equal(found["benign/benign (2).png"], expected)


def test_an_image_without_a_mask_and_a_mask_without_an_image_are_told(tmp_path):
    for i in range(COUNT):
        photograph(tmp_path / f"photos/a_{i}.jpg", i)
        picture(tmp_path / f"gt/a_{i + 1}_gt.png", truth(i + 1))
    source = Source(tmp_path)
    labels = recognise(source)[0].read(source)
    assert len(labels.items) == COUNT - 1 and [problem.kind for problem in labels.left_out] == [
        "masks without an image, or with several"
    ]
    assert tmp_path / "photos/a_0.jpg" in labels.images.files


def test_a_mask_of_two_images_is_left_out_alone(tmp_path):
    for i in NUMBERS:
        photograph(tmp_path / f"photos/{i}.jpg", i)
        picture(tmp_path / f"gt/{i}.png", truth(i))
    photograph(tmp_path / "photos/2.png", 0)
    source = Source(tmp_path)
    labels = recognise(source)[0].read(source)
    assert [item.image.stem for item in labels.items] == ["1", "3"]
    assert [str(problem) for problem in labels.left_out] == [str(tmp_path / "gt/2.png")]


def test_splits_in_the_names_of_folders_tell_equal_names_apart(tmp_path):
    for split, first in (("train", 0), ("val", 3)):
        for i in range(3):
            photograph(tmp_path / f"{split}/{i}.png", first + i)
            picture(tmp_path / f"{split}annot/{i}.png", truth(first + i))
    found = drawn(Source(tmp_path))
    assert len(found) == 6 and np.array_equal(found["val/1.png"], truth(4))


def test_flags_settle_what_names_say_the_other_way_round(tmp_path):
    for i in NUMBERS:
        photograph(tmp_path / f"for_masks/{i}.png", i)
        picture(tmp_path / f"image_classes/{i}.png", truth(i))
    found = drawn(Source(tmp_path, "for_masks", "image_classes"))
    assert len(found) == 3 and np.array_equal(found["for_masks/2.png"], truth(2))


def test_photographs_of_the_same_names_are_no_masks_of_each_other(tmp_path):
    for i in NUMBERS:
        for folder in ("left", "right"):
            photograph(tmp_path / folder / f"{i}.png", i)
    assert recognise(Source(tmp_path)) == (None, "")
    assert len(drawn(Source(tmp_path, "left", "right", binary=True))) == 3
