"""Exports of labelling programs on their way to a training: import_labels, check, predict."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from exports import (
    COUNT,
    EXPORTS,
    HEIGHT,
    NAMES,
    SPLITS,
    WIDTH,
    coco,
    dump,
    labelme,
    photograph,
    picture,
    suffix,
    truth,
)
from PIL import Image

import train
from common.cli import cli
from common.labels import VOID
from common.run import Run
from tools import check, import_labels, predict

VECTOR = ("LabelMe", "COCO", "COCO by Roboflow", "VIA")


def run(*arguments: object) -> None:
    cli(import_labels.main, [str(argument) for argument in arguments])


def checked(folder: Path, capsys) -> tuple[int, str]:
    """Return the exit status and what tools/check.py prints."""
    with pytest.raises(SystemExit) as end:
        cli(check.main, [str(folder)])
    return end.value.code, capsys.readouterr().out


def digests(folder: Path) -> dict[str, str]:
    """Return what each file in a folder holds."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest() for path in files}


def refused(*arguments: object) -> str:
    """Return the sentence that the import ends with."""
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert isinstance(end.value.code, str) and "\n" not in end.value.code
    return end.value.code


def record(out: Path) -> dict[str, list[str]]:
    return json.loads((out / "import.json").read_text())["left out"]


@pytest.mark.parametrize("name", EXPORTS)
def test_check_names_the_command_that_makes_a_sound_folder_of_an_export(name, tmp_path, capsys):
    path, out = EXPORTS[name](tmp_path / "my export"), tmp_path / "my export-imported"
    before = digests(path)
    status, said = checked(path, capsys)
    assert status == 2 and f"python -m tools.import_labels '{path}' '{out}'" in said

    run(path, out)
    said = capsys.readouterr().out
    assert f"{path} is taken for " in said and digests(path) == before
    status, table = checked(out, capsys)
    assert status < 2 and f"{COUNT} samples, 0 problems" in table
    classes = [line.split() for line in (out / "classes.txt").read_text().splitlines()]
    assert classes[-1] == ["ignore", "224", "224", "192"]
    values = {tuple(map(int, line[-3:])): number for number, line in enumerate(classes[:-1])}
    for file in out.glob("masks/**/*.png"):
        index = int(re.search(r"(?<!\d)\d(?!\d)", file.stem)[0])
        picture, expected = Image.open(file), truth(index)
        found = np.array(picture)
        if name == "one folder":  # named by no one, so numbered by the colours
            expected = np.array([0, 2, 1], np.uint8)[expected]
        if name == "JPEG masks":
            assert (found == expected).mean() > 0.95 and ((found == expected) | (found == VOID)).mean() > 0.98
        else:
            assert np.array_equal(found, expected)
        colors = np.array(picture.convert("RGB"))[found != VOID]
        assert [values[tuple(color)] for color in colors[::97].tolist()] == found[found != VOID][::97].tolist()
    if name not in ("_mask", "one folder"):
        assert tuple(" ".join(line[:-3]) for line in classes[:-1]) == NAMES
    for split, indices in SPLITS.items():
        file = out / f"{split.removesuffix('id')}.txt"
        assert file.is_file() == ("Roboflow" in name or "splits" in name)
        assert not file.is_file() or len(file.read_text().split()) == len(indices)
    first = digests(out)
    run(path, out)
    assert digests(out) == first


def test_images_that_lie_elsewhere_are_found_and_linked_to(tmp_path):
    path, out = coco(tmp_path / "export"), tmp_path / "out"
    (path / "images").rename(tmp_path / "photos")
    file = path / "annotations/instances_default.json"
    assert "names '0.jpg', which is not there; is it elsewhere (--images)?" in refused(file, out)
    run(file, out, "--images", tmp_path / "photos", "--link")
    assert len(digests(out / "masks")) == COUNT
    assert (out / "images/3.jpg").samefile(tmp_path / "photos/default/3.jpg")


def test_an_image_that_only_its_label_file_holds_is_written(tmp_path):
    path, out = labelme(tmp_path / "export"), tmp_path / "out"
    image = (path / "cat 0.jpg").read_bytes()
    (path / "cat 0.jpg").unlink()
    run(path, out)
    assert (out / "images/cat 0.jpg").read_bytes() == image and (out / "images/trip to Köln/cat 8.jpg").is_file()


def test_what_is_left_out_is_counted_by_reason_and_kept_in_full(tmp_path, capsys):
    path, out = labelme(tmp_path / "export"), tmp_path / "out"
    content = json.loads((path / "cat 3.json").read_text())
    outside = {"label": "cat", "points": [[-9, -9], [-5, -9], [-5, -2]], "shape_type": "polygon"}
    dump(path / "cat 3.json", content | {"shapes": [*content["shapes"], *[outside] * 5]})
    dump(path / "cat 4.json", content | {"imagePath": "gone.jpg"})
    dump(path / "cat 5.json", content | {"imagePath": "cat 5.jpg", "imageWidth": WIDTH + 1})
    dump(path / "cat 6.json", content | {"imagePath": "cat 6.jpg", "shapes": [{"label": "cat", "points": "?"}]})
    (path / "trip to Köln/cat 7.json").write_text("{")
    dump(path / "more.json", content)
    photograph(path / "extra.jpg", 0)
    (path / "cat 2.jpg").write_bytes(b"hello")
    run(path, out)
    said = capsys.readouterr().out
    kinds = {kind.split(",")[0].split(":")[0]: texts for kind, texts in record(out).items()}
    assert {kind: len(texts) for kind, texts in kinds.items()} == {
        "images that are listed and not there": 1,
        "files that cannot be read": 2,
        "images that come twice": 1,
        "images without labels": 3,
        "objects that cover no pixel": 5,
        "labels for another size than the image has": 1,
        "images whose labels cannot be understood": 1,
    }
    assert (
        "left out (5): objects that cover no pixel" in said and "cat 3.json: shape 3 is a polygon of 3 points" in said
    )
    assert "  and 2 more, in " in said and f"{out}: 4 images, 3 classes: background, cat, dog" in said
    assert f"cat 5.jpg has {WIDTH}x{HEIGHT} pixels upright, and is labelled for {WIDTH + 1}x{HEIGHT}" in said
    assert len(digests(out / "images")) == len(digests(out / "masks")) == 4


def test_labels_that_differ_in_case_are_one_class_and_that_is_said(tmp_path, capsys):
    path, out = labelme(tmp_path / "export"), tmp_path / "out"
    (path / "cat 3.json").write_text((path / "cat 3.json").read_text().replace('"cat"', '" Cat "'))
    run(path, out)
    assert "the labels 'cat' and 'Cat' are one class" in capsys.readouterr().out
    assert np.array_equal(np.array(Image.open(out / "masks/cat 3.png")), truth(3))


def many(count: int) -> list[dict]:
    corners = [[0, 0], [9, 0], [9, 9]]
    return [{"label": f"class {i}", "points": corners, "shape_type": "polygon"} for i in range(count)]


def test_there_are_255_classes_at_most(tmp_path):
    path = labelme(tmp_path / "export")
    content = json.loads((path / "cat 3.json").read_text())
    dump(path / "cat 3.json", content | {"shapes": many(300)})
    assert "has 303 classes with the background; there can be 2 to 255" in refused(path, tmp_path / "out")
    dump(path / "cat 3.json", content | {"shapes": many(252)})
    run(path, tmp_path / "out")
    assert np.array(Image.open(tmp_path / "out/masks/cat 3.png"))[1, 2] == 254


def test_an_import_writes_to_a_new_folder_or_its_own(tmp_path):
    path, out = suffix(tmp_path / "export"), tmp_path / "out"
    assert "lie in one another" in refused(path, path / "out")
    assert "lie in one another" in refused(path, tmp_path)
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert f"{out} holds notes.txt, which is of no import of {path}; name a new folder" in refused(path, out)
    (out / "notes.txt").unlink()
    run(path, out)
    (out / "images/mine.jpg").write_bytes(b"")
    assert "images/mine.jpg, which this import does not write; name a new folder" in refused(path, out)
    (out / "images/mine.jpg").unlink()
    (out / "masks/3.png").unlink()  # as if it had been interrupted
    run(path, out)
    assert (out / "masks/3.png").is_file()
    classes = (out / "classes.txt").read_text().replace("class 1", "cat")
    (out / "classes.txt").write_text(classes)
    assert "classes.txt has been edited, or the labels have changed" in refused(path, out)
    assert (out / "classes.txt").read_text() == classes
    assert "which is of no import of" in refused(coco(tmp_path / "another"), out)


def test_the_photograph_of_a_telephone_is_labelled_upright(tmp_path, capsys):
    path, out = labelme(tmp_path / "export"), tmp_path / "out"
    file = path / "cat 3.jpg"
    turned = Image.open(file).transpose(Image.Transpose.ROTATE_90)
    (exif := turned.getexif())[0x0112] = 6  # to be turned to the right to be seen
    turned.save(file, exif=exif)
    run(path, out)
    assert checked(out, capsys)[0] < 2 and np.array_equal(np.array(Image.open(out / "masks/cat 3.png")), truth(3))


def each_mask(do):
    return lambda path: [do(file) for file in path.glob("*/*_mask.png")]


def table(text: str):
    return lambda path: (path / "test/_classes.csv").write_text(text)


DAMAGES = [
    (shutil.rmtree, "export is missing"),
    (
        each_mask(Path.unlink),
        "has no known layout; it holds test/ (2 .jpg, 1 .csv), train/ (5 .jpg, 1 .csv), valid/",
    ),
    (each_mask(lambda file: picture(file, np.full((9, 9), 3, np.uint8))), "is 9x9 pixels, and its image"),
    (table("a,b\nc,d\n"), "test/_classes.csv is no table of Pixel Value and Class"),
    (table("Pixel Value, Class\n0, background\n"), "has 1 classes with the background"),
]


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES)
def test_an_export_that_cannot_be_used_is_refused_in_one_sentence_that_names_it(tmp_path, damage, sentence):
    path = EXPORTS["Roboflow's masks"](tmp_path / "export")
    damage(path)
    assert sentence in refused(path, tmp_path / "out") and not [*tmp_path.glob("out/*")]


def test_masks_that_are_photographs_or_smoothed_are_refused(tmp_path):
    path = tmp_path / "export"
    for i in range(3):
        photograph(path / f"{i}.jpg", i)
        photograph(path / f"{i}_mask.png", i)
    assert "outlines hard, not smoothed" in refused(path, tmp_path / "out")


def test_a_folder_that_is_one_already_an_archive_and_labels_of_no_structure_are_told_apart(tmp_path, capsys):
    path = tmp_path / "export"
    photograph(path / "images/a.jpg", 0)
    picture(path / "masks/a.png", truth(0))
    run(path, tmp_path / "copy")
    assert "images/ and masks/ lie as a training takes them" in capsys.readouterr().out
    shutil.make_archive(str(tmp_path / "zipped"), "zip", path)
    assert "is an archive; unpack it" in refused(tmp_path / "zipped.zip", tmp_path / "out")
    dump(path / "labels.json", {"images": 3, "annotations": [], "categories": []})
    assert "is not as COCO JSON should be (TypeError" in refused(path, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTS)
def test_the_export_of_each_program_trains_a_model_whose_overlays_can_be_looked_at(name, tmp_path):
    run(EXPORTS[name](tmp_path / "export"), tmp_path / "photos")
    train.main(str(tmp_path / "photos"), image_size=32, epochs=1, run=Run(device="cpu", name="tried"))
    out = predict.main([tmp_path / "photos/images"], checkpoint="best_tried.pt", device="cpu")
    assert len([*(out / "overlays").rglob("*.png")]) == COUNT
