"""Inputs that are easily read wrongly: the label that is meant, or a refusal that names the way on."""

import json
from pathlib import Path

import numpy as np
import pytest
from exports import COUNT, EXPORTS, HEIGHT, WIDTH, annotations, coco, dump, photograph, picture, truth, via, yolo
from PIL import Image, ImageFilter
from test_import import digests, record, refused, run


def mask(out: Path, name: str) -> np.ndarray:
    return np.array(Image.open(out / "masks" / f"{name}.png"))


def folders(root: Path, change=lambda mask: mask, suffix: str = ".png") -> Path:
    """Write photos/ and gt/, whose masks are made of the scenes' classes by `change`."""
    for i in range(COUNT):
        photograph(root / "photos" / f"{i}.jpg", i)
        picture(root / "gt" / f"{i}{suffix}", change(truth(i)))
    return root


def splits(out: Path) -> dict[str, list[str]]:
    return {file.stem: file.read_text().split() for file in out.glob("*.txt") if file.stem != "classes"}


# pictures


@pytest.mark.parametrize("layout", ["images/{split}/{i}", "{split}/images/{i}"])
def test_folders_of_splits_become_lists(layout, tmp_path, capsys):
    parts, out = {"training": [0, 1, 2, 3], "validation": [4, 5], "test": [6]}, tmp_path / "out"
    for split, indices in parts.items():
        for i in indices:
            path = tmp_path / "export" / layout.format(split=split, i=i)
            photograph(path.with_suffix(".jpg"), i)
            picture(Path(str(path).replace("images", "masks") + ".png"), truth(i))
    run(tmp_path / "export", out)
    found = splits(out)
    assert [len(found[split]) for split in ("train", "val", "test")] == [4, 2, 1]
    assert [Path(name).name for name in found["test"]] == ["6"]
    assert np.array_equal(mask(out, found["test"][0]), truth(6))


def test_lists_of_splits_are_kept(tmp_path):
    path = folders(tmp_path / "export")
    lists = {"train": ["0", "1.jpg", "2"], "val": ["3"], "test": ["4"]}
    for split, names in lists.items():
        (path / f"{split}.txt").write_text("\n".join(names))
    run(path, tmp_path / "out")
    assert splits(tmp_path / "out") == lists | {"train": ["0", "1", "2"]}
    (path / "val.txt").write_text("3\n4\n")
    assert "val.txt and test.txt" in refused(path, tmp_path / "other")


def test_an_export_that_shows_no_object_is_refused_and_leaves_nothing(tmp_path):
    path = folders(tmp_path / "export", lambda mask: np.uint8(255 * (mask > 9)))
    (path / "classes.txt").write_text("background\nthing\n")
    assert "has no image that shows an object" in refused(path, tmp_path / "out")
    assert not [file for file in (tmp_path / "out").rglob("*") if file.is_file()]


def test_three_grey_levels_with_smooth_outlines_are_not_taken_for_two(tmp_path):
    def smooth(mask: np.ndarray) -> np.ndarray:
        levels = Image.fromarray(np.array([0, 127, 255], dtype=np.uint8)[np.minimum(mask, 2)]).resize((400, 300))
        return np.array(levels.filter(ImageFilter.BoxBlur(1)).resize((WIDTH, HEIGHT)))

    assert "--binary" not in refused(folders(tmp_path / "export", smooth), tmp_path / "out")


def test_numbers_of_objects_are_warned_of_and_binary_makes_them_one_class(tmp_path, capsys):
    def count(classes: np.ndarray) -> np.ndarray:  # a third object beside the two, in every second image
        classes[42:46, 2 : 20 + 0 * count.calls] = (classes.max() + 1) if count.calls % 2 else 0
        count.calls += 1
        return classes

    count.calls = 0
    path = folders(tmp_path / "export", count)
    run(path, tmp_path / "out")
    assert "WARNING: the numbers in the masks look like objects" in (said := capsys.readouterr().out)
    assert "with --binary" in said
    run(path, tmp_path / "one", "--binary")
    assert "WARNING" not in capsys.readouterr().out
    before = np.array(Image.open(path / "gt/1.png"))
    assert before.max() == 3 and np.array_equal(mask(tmp_path / "one", "1"), before > 0)
    assert (tmp_path / "one/classes.txt").read_text().startswith("background 0 0 0\nobject ")


def test_smoothed_masks_are_refused_and_binary_takes_the_nearer_of_two(tmp_path):
    def smooth(classes: np.ndarray) -> np.ndarray:
        return np.array(Image.fromarray((classes > 0) * np.uint8(255)).filter(ImageFilter.GaussianBlur(0.5)))

    path, out = folders(tmp_path / "export", smooth), tmp_path / "out"
    assert "outlines are smoothed; add --binary" in refused(path, out)
    run(path, out, "--binary")
    assert np.array_equal(mask(out, "3"), np.array(Image.open(path / "gt/3.png")) > 127)
    assert np.mean(mask(out, "3") == (truth(3) > 0)) > 0.99


def test_objects_drawn_by_transparency_numbers_beyond_255_and_fractions_are_refused_or_meant(tmp_path):
    alpha = folders(tmp_path / "a", lambda m: np.stack([np.full_like(m, 9)] * 3 + [(m > 0) * np.uint8(255)], axis=2))
    assert "transparency" in (said := refused(alpha, tmp_path / "out")) and "--binary" in said
    many = folders(tmp_path / "b", lambda m: m.astype(np.uint16) * 500)
    assert "500" in (said := refused(many, tmp_path / "out")) and "--binary" in said
    half = folders(tmp_path / "c", lambda m: m.astype(np.float32) / 2, ".tif")
    assert "fractions" in refused(half, tmp_path / "out")
    for path in (alpha, many):
        run(path, tmp_path / f"out {path.name}", "--binary")
        assert np.array_equal(mask(tmp_path / f"out {path.name}", "2"), truth(2) > 0)
    whole = folders(tmp_path / "d", lambda m: (m > 0).astype(np.float32), ".tif")
    run(whole, tmp_path / "out")
    assert np.array_equal(mask(tmp_path / "out", "2"), truth(2) > 0)


def test_values_with_gaps_are_classes_named_by_them(tmp_path):
    run(folders(tmp_path / "export", lambda m: np.uint8([0, 7, 26])[m]), tmp_path / "out")
    assert [line.split()[:2] for line in (tmp_path / "out/classes.txt").read_text().splitlines()[1:3]] == [
        ["value", "7"],
        ["value", "26"],
    ]
    assert np.array_equal(mask(tmp_path / "out", "1"), truth(1))


def test_pages_are_warned_of(tmp_path, capsys):
    path = folders(tmp_path / "export")
    page = Image.open(path / "photos/0.jpg")
    page.save(path / "photos/0.tif", save_all=True, append_images=[page] * 4)
    (path / "photos/0.jpg").unlink()
    run(path, tmp_path / "out")
    assert "WARNING: 1 file has several pages" in capsys.readouterr().out


OBJECTS = [
    ("stage1_train/ab{}/images/ab{}.png", "stage1_train/ab{}/masks/{}f.png"),
    ("images/{}.png", "masks/{}/{}.png"),
]


@pytest.mark.parametrize(("image", "mask"), OBJECTS)
def test_a_mask_for_each_object_is_one_class(image, mask, tmp_path):
    for i in range(COUNT):
        photograph(tmp_path / "export" / image.format(i, i), i)
        for number in (1, 2):
            picture(tmp_path / "export" / mask.format(i, number), truth(i, number))
    run(tmp_path / "export", tmp_path / "out")
    for file in (tmp_path / "out").glob("masks/**/*.png"):
        assert np.array_equal(np.array(Image.open(file)), truth(int(file.stem[-1])) > 0)
    assert len([*(tmp_path / "out").glob("masks/**/*.png")]) == COUNT


# labels in text


def test_two_coco_files_are_both_read_and_objects_of_one_image_are_joined(tmp_path):
    path, out = coco(tmp_path / "export"), tmp_path / "out"
    content = annotations(range(COUNT), "")
    cats = [item for item in content["annotations"] if item["category_id"] == 7]
    dogs = [item | {"category_id": 1} for item in content["annotations"] if item["category_id"] == 14]
    dump(
        path / "annotations/instances_default.json",
        content | {"annotations": cats, "categories": [{"id": 7, "name": "cat"}]},
    )
    dump(
        path / "annotations/more_instances.json",
        content | {"annotations": dogs, "categories": [{"id": 1, "name": "dog"}]},
    )
    run(path, out)
    assert "images that come twice" not in str(record(out))
    assert all(np.array_equal(mask(out, str(i)), truth(i)) for i in range(COUNT))


def test_binary_makes_one_class_of_labels_in_text(tmp_path):
    run(coco(tmp_path / "export"), tmp_path / "out", "--binary")
    assert all(np.array_equal(mask(tmp_path / "out", str(i)), truth(i) > 0) for i in range(COUNT))
    assert [line.split()[0] for line in (tmp_path / "out/classes.txt").read_text().splitlines()] == [
        "background",
        "object",
        "ignore",
    ]


def test_boxes_alone_are_refused_and_beside_outlines_they_are_void(tmp_path):
    path = coco(tmp_path / "coco")
    content = annotations(range(COUNT), "")
    for item in content["annotations"]:
        item["segmentation"] = []
    dump(path / "annotations/instances_default.json", content)
    assert "boxes have no outline, and a segmentation needs polygons or masks" in refused(path, tmp_path / "out")
    path = yolo(tmp_path / "yolo")
    for file in path.glob("labels/*.txt"):
        file.write_text("0 0.5 0.5 0.25 0.5\n")
    assert "boxes have no outline" in refused(path, tmp_path / "out")
    (path / "labels/3.txt").write_text("0 0.5 0.5 0.25 0.5\n1 0 0 0.25 0 0.25 0.25\n")
    run(path, tmp_path / "out")
    assert (mask(tmp_path / "out", "3")[HEIGHT // 4 : -HEIGHT // 4, WIDTH * 3 // 8 : -WIDTH * 3 // 8] == 255).all()
    assert len(record(tmp_path / "out")["boxes without an outline, which become void"]) == COUNT


def test_regions_of_via_without_attributes_are_one_class(tmp_path):
    path = via(tmp_path / "export")
    content = json.loads((path / "via_project.json").read_text())["_via_img_metadata"]
    for entry in content.values():
        for region in entry["regions"]:
            region["region_attributes"] = {}
    (path / "via_project.json").unlink()
    dump(path / "via_region_data.json", content)
    run(path, tmp_path / "out")
    assert np.array_equal(mask(tmp_path / "out", "4"), truth(4) > 0)
    assert "\nobject " in (tmp_path / "out/classes.txt").read_text()


YAMLS = {
    "a list in one line": "names: [cat, 'big, dog']\n",
    "a list in several lines": 'names:\n- cat   # the first\n- "big, dog"\n',
    "numbers": "names:\n  1: big, dog\n  0: cat\n",
    "numbers in one line": "{names}names: {{0: cat, 1: 'big, dog'}}\n".format(names="nc: 2\n"),
}


@pytest.mark.parametrize("form", YAMLS)
def test_the_names_in_a_data_yaml_are_a_list_or_numbered(form, tmp_path):
    path = yolo(tmp_path / "export")
    text = YAMLS[form] if form != "numbers" else YAMLS[form].replace("big, dog", "'big, dog'")
    (path / "data.yaml").write_text(f"path: ../x\ntrain: images\n\n{text}download: |\n  import a\n")
    run(path, tmp_path / "out")
    lines = (tmp_path / "out/classes.txt").read_text().splitlines()
    assert [" ".join(line.split()[:-3]) for line in lines] == ["background", "cat", "big dog", "ignore"]
    assert np.array_equal(mask(tmp_path / "out", "5"), truth(5))


def test_names_in_another_form_a_class_beyond_the_list_and_broken_lines_are_told(tmp_path):
    path, out = yolo(tmp_path / "export"), tmp_path / "out"
    (path / "data.yaml").write_text("names:\n  0: cat\n  2: dog\n")
    assert "names should be a list, or lines `0: name`" in refused(path, out)
    (path / "data.yaml").write_text("names: [cat]\n")
    (path / "labels/4.txt").write_text("")
    (path / "labels/5.txt").write_text("0 0.1 0.2 0.3 0.4 0.5\ncat 1 2 3\n")
    (path / "labels/6.txt").write_text("0 0 0 1 0 1 1 0.5\n")
    run(path, out)
    left = record(out)
    assert len(left["objects of no known class, which become void"]) == 4 and mask(out, "0").max() == 255
    assert [text.rpartition("/")[2] for text in left["lines that are no class and pairs of numbers"]] == [
        "5.txt, line 1",
        "5.txt, line 2",
        "6.txt, line 1",
    ]
    assert not mask(out, "4").any()  # an empty file: background


def test_data_yaml_tells_the_splits_by_folders_or_lists_and_an_image_in_two_is_left_out(tmp_path):
    path, out = yolo(tmp_path / "export"), tmp_path / "out"
    (path / "data.yaml").write_text("train: lists/a.txt\nval: ./lists/b.txt\nnames: [cat, dog]\n")
    (path / "lists").mkdir()
    (path / "lists/a.txt").write_text("".join(f"./images/{i}.jpg\n" for i in range(6)))
    (path / "lists/b.txt").write_text("".join(f"./images/{i}.jpg\n" for i in range(5, 9)))
    run(path, out)
    assert splits(out) == {"train": [*"01234"], "val": [*"678"]}
    assert "images/5.jpg is in two splits" in str(record(out))
    (path / "data.yaml").write_text("train: images\nval: images\nnames: [cat, dog]\n")
    assert "is in two splits; each image should be in one" in refused(path, tmp_path / "again")


def test_runs_that_count_in_another_way_are_refused(tmp_path):
    path = EXPORTS["run lengths"](tmp_path / "export")
    (path / "train.csv").write_text(
        "ImageId_ClassId,EncodedPixels\n0.jpg_1,5 3 6 3\n1.jpg_1,3070 9\n2.jpg_2,\n3.jpg_2,1 2\n"
    )
    run(path, tmp_path / "out")
    texts = record(tmp_path / "out")["runs that do not count the pixels of the image from 1"]
    assert [text.rpartition(" ")[2] for text in texts] == ["2", "3"]
    assert not mask(tmp_path / "out", "2").any() and mask(tmp_path / "out", "3").ravel(order="F")[:3].tolist() == [
        2,
        2,
        0,
    ]


# what cannot be read


def test_a_damaged_file_of_labels_is_named_first_and_utf_16_is_read(tmp_path):
    path = EXPORTS["COCO by Roboflow"](tmp_path / "export")
    files = sorted(path.rglob("*.json"))
    texts = [file.read_text() for file in files]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text[:700])
    assert "_annotations.coco.json is no JSON" in (said := refused(path, tmp_path / "out")) and "layout" not in said
    for file, text in zip(files, texts, strict=True):
        file.write_text(text, encoding="utf-16")
    run(path, tmp_path / "out")
    assert len(digests(tmp_path / "out/masks")) == COUNT


def test_an_unknown_layout_is_described_with_the_command_to_try(tmp_path):
    for i in range(3):
        photograph(tmp_path / f"export/x/{i}.png", i)
        photograph(tmp_path / f"export/y/{i}.png", i)
    said = refused(tmp_path / "export", tmp_path / "out")
    assert "it holds x/ (3 .png), y/ (3 .png)" in said and "--images x --masks y" in said
    (tmp_path / "export/x/a.HEIC").write_bytes(b"?")
    assert "holds 1 .HEIC files, which are not read; convert them to JPEG" in refused(
        tmp_path / "export", tmp_path / "out"
    )
    (tmp_path / "empty").mkdir()
    assert "has no known layout; it holds nothing" in refused(tmp_path / "empty", tmp_path / "out")
    assert "nowhere is no folder with pictures" in refused(tmp_path / "export", tmp_path / "out", "--masks", "nowhere")
