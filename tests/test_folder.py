import json
import shlex
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import started, write_folder
from PIL import Image

import train
from common.checkpoint import load_model
from common.cli import cli
from common.datasets import VOID, load
from common.datasets.folder import folder, inspect
from common.datasets.reading import open_image
from common.labels import voc_palette
from common.run import Run
from common.system.errors import UserError
from tools import compare, predict

RED, GREEN, BLACK = (255, 0, 0), (0, 200, 0), (0, 0, 0)


@pytest.fixture
def photos(tmp_path):
    return write_folder(tmp_path / "photos")


def masks_of(photos, values, mode="L", palette=None):
    """Replace every mask by stripes of `values`, numbers or colours."""
    for path in (photos / "masks").iterdir():
        mask = np.array(values, dtype=np.uint8)[np.arange(48) * len(values) // 48][:, None].repeat(48, axis=1)
        picture = Image.fromarray(mask)
        if palette:
            picture.putpalette(palette)
        picture.convert((palette and "P") or mode).save(path)


def classes(photos, *lines):
    (photos / "classes.txt").write_text("\n".join(lines), encoding="utf-8")


def stripes(photos, size=48):
    """Return the set, and the classes of the stripes in its masks, from top to bottom."""
    train_set, _, _ = load(str(photos), size, started())
    column = train_set.masks[0, :, 0].tolist()
    return train_set, [value for i, value in enumerate(column) if not i or value != column[i - 1]]


def test_a_folder_is_a_data_set_whose_values_are_classes(photos, capsys):
    train_set, val_set, test_set = load(str(photos), 48, started())
    assert len(train_set) + len(val_set) + len(test_set) == 8 and min(len(val_set), len(test_set)) >= 1
    assert train_set.classes == tuple(f"class {i}" for i in range(6)) and train_set.palette == voc_palette(6)
    name = train_set.names[2]
    assert torch.equal(train_set.masks[2], torch.from_numpy(np.array(open_image(photos / "masks" / f"{name}.png"))))
    assert train_set.masks.max() == VOID
    assert "images at 48x48, 6 classes" in capsys.readouterr().out


def test_experiments_train_on_it_and_the_checkpoint_knows_names_and_colours(photos, small_network, without_pictures):
    classes(
        photos, "ground 0 0 0", "disk 230 75 60", "box #f5be28", "wedge 80,180,90", "star 60 130 220", "cross 9 9 9"
    )
    cli(train.main, ["--dataset", str(photos), "--image-size", "32", "--epochs", "1", "--device", "cpu"])
    _, contents = load_model(Path("best_train-photos-image_size32-epochs1.pt"))
    assert contents["classes"] == ["ground", "disk", "box", "wedge", "star", "cross"]
    assert contents["palette"][2] == [245, 190, 40] and contents["dataset"] == str(photos)
    assert contents["label_map"]["numbers"][255] == VOID
    splits = json.loads(Path("runs/train-photos-image_size32-epochs1/splits.json").read_text())
    assert sorted(name for names in splits.values() for name in names) == [str(i) for i in range(8)]


def test_a_run_is_named_after_the_folder_wherever_it_is(photos, monkeypatch):
    monkeypatch.chdir(photos)
    for path, name in ((".", "train-photos"), ("../photos/", "train-photos"), ("../my photos $", "train-my_photos__")):
        assert Run(device="cpu").start(train.main.__wrapped__, {"dataset": path}).name.startswith(name)


def test_nested_folders_suffixes_of_any_case_spaces_and_accents_work(photos):
    for name, suffix in (("trip to Köln/Größe 1", ".JPG"), ("trip to Köln/deep/b.c", ".TIFF"), ("zwölf", ".webp")):
        (photos / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        mask = photos / "masks" / unicodedata.normalize("NFD", name)  # as a Mac writes it
        mask.parent.mkdir(parents=True, exist_ok=True)
        open_image(photos / "images/0.jpg").save(f"{photos}/images/{name}{suffix}")
        shutil.copy(photos / "masks/0.png", f"{mask}.PNG")
    for junk in ("images/.DS_Store", "images/._0.jpg", "masks/Thumbs.db", "images/.hidden/1.jpg"):
        (photos / junk).parent.mkdir(exist_ok=True)
        (photos / junk).write_text("junk")
    names = [name for part in load(str(photos), 32, started()) for name in part.names]
    assert len(names) == 11 and {"trip to Köln/Größe 1", "trip to Köln/deep/b.c", "zwölf"} < set(names)


def test_another_classes_txt_renews_the_cache(photos):
    masks_of(photos, [0, 1, 2])
    assert stripes(photos)[1] == [0, 1, 2]
    classes(photos, "a", "b", "ignore 1")
    assert stripes(photos)[1] == [0, VOID, 1]


# what masks mean


def test_masks_of_0_and_255_are_a_binary_task_and_that_is_said(photos, capsys):
    masks_of(photos, [255, 0])
    train_set, column = stripes(photos)
    assert column == [1, 0] and train_set.classes == ("background", "foreground")
    assert "the masks hold only 0 and 255: a binary task" in capsys.readouterr().out
    classes(photos, "street", "car")
    train_set, column = stripes(photos)
    assert column == [1, 0] and train_set.classes == ("street", "car")
    assert "0 is 'street' and 255 is 'car'" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "1"])
def test_black_and_white_masks_of_any_kind_are_a_binary_task(photos, mode):
    masks_of(photos, [255, 0], mode)
    train_set, column = stripes(photos)
    assert column == [1, 0] and len(train_set.classes) == 2


def test_numbers_in_a_row_are_classes_and_255_is_void(photos):
    masks_of(photos, [0, 2, 1, 255])
    assert stripes(photos)[1] == [0, 2, 1, VOID]


@pytest.mark.parametrize(
    ("values", "mode", "palette", "found"),
    [
        ([0, 128, 255], "L", None, "values 128"),
        ([15, 0, 8], "L", None, "values 8; 15"),
        ([RED, BLACK, GREEN], "RGB", None, "colours 0 200 0; 255 0 0"),
        ([2, 0, 4], "P", [*BLACK, *GREEN, *RED, *GREEN, 255, 9, 9], "values 4"),
    ],
)
def test_other_values_and_colours_are_refused_and_taken_as_the_lines_that_are_proposed(
    photos, values, mode, palette, found
):
    masks_of(photos, values, mode, palette)
    sentence = rf"hold the {found} \(the first in \S*0\.png\), which \S*classes\.txt must list"
    with pytest.raises(UserError, match=sentence):
        stripes(photos)
    inspect(photos, Path(".cache"), problems := [])
    classes(photos, *problems[0].lines)
    train_set, column = stripes(photos)
    order = sorted(range(3), key=lambda i: column[i])
    assert [values[i] for i in order] == sorted(values, key=lambda v: (v != BLACK, v)) and sorted(column) == [0, 1, 2]
    assert train_set.classes[0] == "background"


def test_the_colours_of_rgb_masks_are_the_classes_that_classes_txt_lists(photos):
    masks_of(photos, [RED, BLACK, GREEN], "RGB")
    classes(photos, "car 255 0 0", "tree #00C800", "ignore #000000")
    train_set, column = stripes(photos)
    assert column == [0, VOID, 1] and train_set.classes == ("car", "tree") and train_set.palette == (RED, GREEN)
    Image.new("L", (48, 48)).save(photos / "masks/0.png")  # nothing in it, saved as grey
    assert VOID in stripes(photos)[1]


def test_a_palette_mask_is_read_by_its_numbers_or_by_colours_that_classes_txt_lists(photos):
    masks_of(photos, [2, 0, 1], palette=[*BLACK, *GREEN, *RED])
    assert stripes(photos)[1] == [2, 0, 1]
    classes(photos, "red 255 0 0", "green 0 200 0", "black 0 0 0")
    assert stripes(photos)[1] == [0, 2, 1]


def test_palettes_that_differ_from_file_to_file_need_their_colours_listed(photos):
    masks_of(photos, [1, 0], palette=[*BLACK, *RED])
    picture = Image.fromarray(np.zeros((48, 48), dtype=np.uint8))
    picture.putpalette([*RED, *BLACK])
    for name in load(str(photos), 48, started())[0].names[:1]:
        picture.save(photos / "masks" / f"{name}.png")
    with pytest.raises(UserError, match="hold the colours 255 0 0 "):
        stripes(photos)
    classes(photos, "sky 0 0 0", "car 255 0 0")
    train_set, _ = stripes(photos)
    assert train_set.masks[0].unique().tolist() == [1] and train_set.masks[1].unique().tolist() == [0, 1]


def test_comments_stand_beside_colours(photos):
    masks_of(photos, [RED, BLACK, GREEN], "RGB")
    lines = (
        "# my classes",
        "  #ff0000 was red",
        "car #ff0000 # 1.2% of the pixels",
        "tree #00c800\t#",
        "ignore 0 0 0 # ?",
    )
    classes(photos, *lines)
    train_set, column = stripes(photos)
    assert column == [0, VOID, 1] and train_set.classes == ("car", "tree")
    classes(photos, "car #ff0000#", "tree #00c800")
    with pytest.raises(UserError, match="line 1, 'car #ff0000#', is no class"):
        stripes(photos)


def test_classes_are_the_lines_of_classes_txt_whatever_the_masks_hold(photos):
    masks_of(photos, [3, 1])
    classes(photos, "sky", "wide road", "car", "dog")
    train_set, column = stripes(photos)
    assert column == [3, 1] and train_set.classes == ("sky", "wide road", "car", "dog")
    classes(photos, "wide road", "car", "dog", "ignore 0")  # as ADE20K counts: the classes begin at 1
    assert stripes(photos)[1] == [2, 0]


# splits


def names_in(photos):
    return [part.names for part in load(str(photos), 16, started())]


def test_drawn_splits_are_exact_and_few_images_move_when_others_are_added(photos):
    splits = []
    for numbers in (range(92), range(92, 132)):
        for i in numbers:
            shutil.copy(photos / "images/0.jpg", photos / f"images/image {i}.jpg")
            shutil.copy(photos / "masks/0.png", photos / f"masks/image {i}.png")
        parts = folder(photos, Path("cache")).splits
        splits.append({split: {sample[0] for sample in part} for split, part in parts.items()})
    before, after = splits
    assert [len(before[split]) for split in ("train", "val", "test")] == [70, 15, 15]
    assert [len(after[split]) for split in ("train", "val", "test")] == [98, 21, 21]
    assert sum(len(before[split] - after[split]) for split in before) < 20


def test_every_image_is_tested_once_in_a_cross_validation(photos, capsys):
    tested, validated = [], set()
    for fold in ("1/3", "2/3", "3/3"):
        train_names, val_names, test_names = (s.names for s in load(str(photos), 16, started(fold=fold)))
        validated |= {*val_names}
        assert len(train_names + val_names + test_names) == 8 == len({*train_names, *val_names, *test_names})
        tested += test_names
    assert len(tested) == 8 == len({*tested}) and "fold 3/3" in capsys.readouterr().out
    assert len(validated) == 3  # one image for each fold


def test_a_fold_may_be_the_images_of_a_folder(photos):
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        (photos / kind / "kitchen").mkdir()
        for name in ("1", "2"):
            (photos / f"{kind}/{name}.{suffix}").rename(photos / f"{kind}/kitchen/{name}.{suffix}")
        (photos / f"{kind}/hall/left").mkdir(parents=True)
        (photos / f"{kind}/3.{suffix}").rename(photos / f"{kind}/hall/left/3.{suffix}")
    with pytest.raises(UserError, match=r"\(there: hall, hall/left, kitchen\)"):
        folder(photos, Path("cache"), fold="left")
    splits = folder(photos, Path("cache"), fold="kitchen").splits
    assert {sample[0] for sample in splits["test"]} == {"kitchen/1", "kitchen/2"}
    assert len(splits["train"]) + len(splits["val"]) == 6


def test_folds_of_a_data_set_are_of_its_training_images_and_never_of_its_test_images(voc_root):
    def splits(**kwargs) -> list[set]:
        return [set(part.names) for part in load("voc2007", 16, started(data_root=voc_root, **kwargs))]

    train, val, test = splits()
    tested = set()
    for fold in ("1/3", "2/3", "3/3"):
        parts = splits(fold=fold)
        assert set.union(*parts) == train | val and sum(map(len, parts)) == len(train | val) and all(parts)
        assert not tested & parts[2] and not test & set.union(*parts)
        tested |= parts[2]
    assert tested == train | val


def test_a_fold_that_is_none_or_not_ours_to_draw_is_refused(photos):
    for fold in ("0/3", "4/3", "2", "1/9", "1/1", "a/b"):
        with pytest.raises(UserError, match=rf"--fold {fold} is not possible with the 8 images"):
            folder(photos, Path("cache"), fold=fold)
    (photos / "test.txt").write_text("0\n")
    with pytest.raises(UserError, match=r"--fold 1/3 draws the splits, but .*test.txt defines them"):
        folder(photos, Path("cache"), fold="1/3")


def test_lists_decide_and_what_they_leave_out_is_said(photos, capsys):
    for split, text in (("train", "0\n1.jpg\n 2 \n\n"), ("val", "3"), ("test", "\ufeff4\r\n5\r\n5\r\n")):
        (photos / f"{split}.txt").write_bytes(text.encode())
    (photos / "masks/7.png").unlink()  # in no list: it needs no mask
    assert names_in(photos) == [["0", "1", "2"], ["3"], ["4", "5"]]
    assert "2 images are in no list, so they are skipped" in capsys.readouterr().out


def test_of_a_train_list_alone_the_rest_is_drawn_from_it_and_that_is_said(photos, capsys):
    (photos / "train.txt").write_text("0\n1\n2\n3\n")
    assert sorted(name for part in names_in(photos) for name in part) == ["0", "1", "2", "3"]
    assert "train.txt is the only list" in (out := capsys.readouterr().out) and "no list says" not in out


@pytest.mark.parametrize("split", ["val", "test"])
def test_of_two_lists_one_is_the_test(photos, split, capsys):
    (photos / f"{split}.txt").write_text("0\n1\n")
    train_names, val_names, test_names = names_in(photos)
    assert test_names == ["0", "1"] and len(train_names) + len(val_names) == 6 and val_names
    assert f"{split}.txt is the test" in capsys.readouterr().out


def keep_back(photos, *names):
    """Make `names` the test, and take their masks away."""
    (photos / "test.txt").write_text("\n".join(names))
    for name in names:
        (photos / f"masks/{name}.png").unlink()


def test_a_test_without_masks_is_not_scored_and_the_command_that_is_told_predicts_it(
    photos, small_network, without_pictures, capsys
):
    keep_back(photos, "2", "5")
    assert train.main(str(photos), 32, 1, run=Run(device="cpu", name="hidden")) == {}
    lines = capsys.readouterr().out.splitlines()
    assert f"{photos}: the 2 images of test.txt have no masks: they can be predicted but not scored" in lines
    assert lines[-1].startswith("test: 2 images without masks, not scored; `python -m tools.predict ")
    assert not Path("runs/hidden/test.json").exists()
    cli(predict.main, shlex.split(lines[-1].split("`")[1])[3:])
    masks = {path.stem: open_image(path) for path in Path("predictions/hidden/images/masks").iterdir()}
    assert masks.keys() == {"2", "5"} and all(mask.mode == "P" and mask.size == (48, 48) for mask in masks.values())


def test_trainings_are_not_compared_by_a_test_without_masks(photos, capsys):
    keep_back(photos, "2", "5")
    with pytest.raises(UserError, match="1 of 1 runs failed"):
        compare.main(Path("train.py"), ["lr=1e-3"], f"--dataset {photos} --image-size 32 --epochs 1 --device cpu")
    assert "compare-train-1e-3: failed: it left no test.json (see runs" in capsys.readouterr().out


def test_a_test_without_some_of_its_masks_is_refused_and_so_are_training_images_without(photos):
    keep_back(photos, "2", "5")
    assert names_in(photos)[2] == ["2", "5"]
    (photos / "test.txt").write_text("2\n5\n7\n")
    with pytest.raises(UserError, match=r"images/2\.jpg has no mask.*\(and 1 more problems"):
        names_in(photos)
    keep_back(photos, "3", "4")
    (photos / "train.txt").write_text("0\n1\n2\n")
    with pytest.raises(UserError, match=r"images/2\.jpg has no mask"):
        names_in(photos)


def test_three_images_make_three_splits(tmp_path):
    assert all(names_in(write_folder(tmp_path / "few", 3)))


# bad input


def rewrite(name, picture):
    return lambda photos: picture.save(photos / "masks" / name)


def lists(**names):
    return lambda photos: [(photos / f"{split}.txt").write_text(text) for split, text in names.items()]


def jpegs(photos):
    for mask in (photos / "masks").iterdir():
        open_image(mask).save(mask.with_suffix(".jpg"), quality=60)
        mask.unlink()


NOISE = Image.fromarray(np.arange(48 * 48).reshape(48, 48).astype(np.uint8))
PHOTOGRAPH = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8))
RED_MASK = Image.new("RGB", (48, 48), RED)
PROBLEMS = [
    (
        lambda p: (p / "images").rename(p / "imgs"),
        r"images is missing: \S*photos holds imgs/ \(8 \.jpg\), masks/ .*; try `python -m tools\.import_labels",
    ),
    (lambda p: (p / "masks/3.png").unlink(), r"images/3\.jpg has no mask.*expected .*masks/3\.png"),
    (lambda p: (p / "images/3.jpg").unlink(), r"masks/3\.png has no image"),
    (lambda p: shutil.copy(p / "images/3.jpg", p / "images/3.PNG"), r"3\.PNG and .*3\.jpg have the same name"),
    (rewrite("3.png", Image.new("L", (40, 48))), r"3\.png is 40x48 pixels but its image"),
    (lambda p: (p / "masks/3.png").write_bytes(b"hello"), r"3\.png cannot be read"),
    (lambda p: (p / "images/3.jpg").write_bytes(b"hello"), r"3\.jpg cannot be read"),
    (rewrite("3.png", NOISE), r"values 0; 1; .*; \.\.\. \(the first in .*outlines hard, not smoothed"),
    (rewrite("3.png", PHOTOGRAPH), r"hold the colours .*3\.png.*are these masks"),
    (jpegs, r"values .*\d\.jpg\); a JPEG's compression mixes neighbouring values: save masks as PNG"),
    (
        lambda p: masks_of(p, [RED, BLACK, GREEN], "RGB") or classes(p, "a 0 0 0", "b 255 0 0"),
        r"hold the colours 0 200 0 \(.* must list; `python -m tools\.check \S*photos` proposes lines",
    ),
    (lambda p: masks_of(p, [0]), r"hold the values 0 \(.* must list, with one name for each of 0, 1, 2"),
    (rewrite("3.png", RED_MASK), r"hold the colours 255 0 0 \(the first in \S*3\.png\)"),
    (
        lists(val="1\n2\n9\n10"),
        r"val\.txt names '9', not in .*\(and 1 more problems; `python -m tools\.check .*` lists all\)",
    ),
    (lambda p: classes(p, "a", "b", "c"), r"the values 3; 4; 5 .*classes\.txt must list, with one name for each"),
    (lists(test="\n"), r"test\.txt is empty"),
    (lists(train="1\n2", val="3\n1"), r"train\.txt and .*val\.txt both name 1"),
    (lambda p: classes(p, "a", ""), r"names 1 classes; there can be 2 to 255"),
    (lambda p: classes(p, "a", "b", "a"), r"line 3, 'a', repeats the name or colour"),
    (lambda p: classes(p, "a 1 2 3", "b"), r"classes\.txt gives some classes a colour and others none"),
    (lambda p: classes(p, "a 1 2 300", "b"), r"line 1, .* is no class; write `name`"),
    (lambda p: classes(p, "0 0 0", "b"), r"line 1, .* is no class"),
    (lambda p: classes(p, "a", "b", "ignore"), r"line 3, 'ignore', is no class; .* or `ignore 255`"),
    (lambda p: (p / "classes.txt").write_bytes("Bäume\nHäuser".encode("latin-1")), r"classes\.txt is not UTF-8 text"),
]


@pytest.mark.parametrize(("damage", "message"), PROBLEMS)
def test_a_problem_is_named_in_one_sentence(photos, damage, message):
    damage(photos)
    with pytest.raises(UserError, match=message) as error:
        load(str(photos), 48, started())
    assert "\n" not in str(error.value)


def test_a_path_that_is_no_folder_is_refused_as_such():
    with pytest.raises(UserError, match=r"no/where is no folder; choose one of .*, or a folder with images/"):
        load("no/where", 32, started())
