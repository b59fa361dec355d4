import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, one_sentence, python, started, write_checkpoint, write_folder, write_palette_mask
from PIL import Image
from torch import nn
from torch.nn import functional as F

from common import inference, stream
from common.checkpoint import load_model
from common.datasets.reading import open_image
from common.datasets.shapes import CLASSES, PALETTE, draw_scene
from common.errors import UserError
from common.inference import classes_at, classes_by_tiles, look, predict, spans
from common.labels import VOID, LabelMap
from common.metrics import ConfusionMatrix
from common.overlay import overlay
from common.stream import Item, read
from predict import main


def on_cpu(images, **options):
    return main(Path(images), **{"device": "cpu", "precision": "fp32", **options})


def rows_of(folder):
    with (folder / "shares.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def model():
    """A model, which is also the only checkpoint in the current folder."""
    return write_checkpoint(Path("best_tiny.pt"))


@pytest.fixture
def photos(tmp_path):
    return write_folder(tmp_path / "photos", count=5)


def test_a_photograph_gets_a_mask_of_its_size_an_overlay_and_a_table(model):
    draw_scene(1, 90)[0].crop((0, 0, 90, 60)).save("at the sea.jpg")
    result = python("predict.py", "at the sea.jpg", "--device", "cpu", "--precision", "fp32")
    assert result.returncode == 0, result.stderr
    folder = Path("predictions/tiny/at the sea")
    with Image.open(folder / "masks/at the sea.png") as mask, Image.open("at the sea.jpg") as photo:
        assert mask.mode == "P" and mask.size == (90, 60) and mask.getpalette()[:18] == [v for c in PALETTE for v in c]
        classes = np.asarray(mask)
        assert (classes == predict(model, photo, (32, 32), started())).all() and len(np.unique(classes)) > 1
    (row,) = rows_of(folder)
    assert row["image"] == "at the sea.jpg" and (row["width"], row["height"]) == ("90", "60")
    assert [float(row[name]) for name in CLASSES] == pytest.approx([(classes == i).mean() for i in range(6)], abs=1e-6)
    with Image.open(folder / "overlays/at the sea.png") as picture:
        assert picture.width == 480 and picture.height > 320
    share = f"{(classes == classes[0, 0]).mean():.2%}"
    assert any(line.split()[:2] == [CLASSES[classes[0, 0]], share] for line in result.stdout.splitlines())
    assert "images/s" in result.stdout


def test_a_folder_is_searched_in_depth_and_what_is_no_image_is_listed_and_skipped(model, photos, capsys):
    folder = photos / "images"
    (folder / "trip to Köln").mkdir()
    open_image(folder / "0.jpg").convert("L").rotate(90).save(folder / "trip to Köln/GROSS.PNG")
    open_image(folder / "0.jpg").save(folder / "0.png")  # a second 0
    open_image(folder / "1.jpg").convert("CMYK").resize((700, 20)).save(folder / "1.tiff")
    (folder / "notes.txt").write_text("no image")
    (folder / "broken.jpg").write_text("no image either")
    out = on_cpu(folder)
    assert out == Path("predictions/tiny/images")
    written = {path.relative_to(out / "masks").as_posix() for path in (out / "masks").rglob("*.png")}
    assert written == {"0.jpg.png", "0.png.png", "1.jpg.png", "1.tiff.png", *(f"{i}.png" for i in (2, 3, 4))} | {
        "trip to Köln/GROSS.png"
    }
    assert {path.relative_to(out / "overlays").as_posix() for path in (out / "overlays").rglob("*.png")} == written
    assert len(rows_of(out)) == 8 and rows_of(out)[-1]["image"] == "trip to Köln/GROSS.PNG"
    with Image.open(out / "masks/1.tiff.png") as mask:
        assert mask.size == (700, 20)
    printed = capsys.readouterr().out
    assert "skipped 2 files" in printed and "notes.txt" in printed and "broken.jpg cannot be read" in printed
    assert not list(Path().rglob("*.tmp"))


def test_images_are_the_same_alone_and_among_others(model, photos):
    for i, side in enumerate((20, 20, 48, 20)):
        draw_scene(i, side)[0].save(photos / f"images/{i}.jpg")
    together = on_cpu(photos / "images", out="together", own_size=True)
    for i in range(5):
        on_cpu(photos / f"images/{i}.jpg", out=f"alone {i}", own_size=True)
        ours, theirs = (np.asarray(open_image(Path(f"{out}/masks/{i}.png"))) for out in (together, f"alone {i}"))
        assert (ours == theirs).mean() > 0.99  # sums of another order


def test_a_photograph_is_turned_upright_as_its_camera_says(model):
    picture = draw_scene(1, 90)[0].crop((0, 0, 90, 60))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save("turned.png", exif=exif)
    picture.transpose(Image.Transpose.ROTATE_270).save("upright.png")
    turned, upright = (on_cpu(name) / "masks" / name for name in ("turned.png", "upright.png"))
    assert (np.asarray(open_image(Path(turned))) == np.asarray(open_image(Path(upright)))).all()
    assert open_image(turned).size == (60, 90)


def test_nothing_is_overwritten_without_being_asked(model, photos):
    out = on_cpu(photos / "images")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}
    with pytest.raises(UserError, match=r"\(and 10 more\) is there already; add --overwrite"):
        on_cpu(photos / "images")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.*")} == before
    on_cpu(photos / "images", overwrite=True)
    assert all(path.stat().st_mtime_ns > time for path, time in before.items())


def test_its_own_output_is_not_looked_at(model, photos):
    shutil.copytree(photos / "images", "images")
    on_cpu(".", out="result")
    assert len(rows_of(on_cpu(".", out="result", overwrite=True))) == 5


def test_its_output_may_lie_in_the_folder_that_is_searched(model, photos):
    for out in (".", "images"):  # whose masks/ and overlays/ are passed over, and nothing else
        shutil.copytree(photos / "images", "images", dirs_exist_ok=True)
        for _ in range(2):
            assert len(rows_of(on_cpu("images" if out == "images" else ".", out=out, overwrite=True))) == 5
        assert len(rows_of(on_cpu(".", out=f"other {out}"))) == 5
        shutil.rmtree("images")
    (photos / "images/masks").mkdir()
    shutil.copy(photos / "images/0.jpg", photos / "images/masks")
    assert len(rows_of(on_cpu(photos / "images", out="result"))) == 6  # with no shares.csv beside it, it is no output


def test_no_two_images_are_written_to_one_file(model, photos):
    for name in ("0.png", "0.jpg.png", "0.jpg.png.png"):
        draw_scene(1, 48)[0].save(photos / "images" / name)
    out = on_cpu(photos / "images")
    assert len(rows_of(out)) == 8 == len(list((out / "masks").iterdir())) == len(list((out / "overlays").iterdir()))


def test_a_bad_true_mask_half_way_keeps_what_was_done_before(model, photos):
    for i in range(5, 20):
        shutil.copy(photos / "images/0.jpg", photos / f"images/{i:02}.jpg")
        shutil.copy(photos / "masks/0.png", photos / f"masks/{i:02}.png")
    write_palette_mask(photos / "masks/3.png", np.zeros((9, 9), dtype=np.uint8))
    with pytest.raises(UserError, match=r"masks/3\.png is 9x9 pixels but"):
        on_cpu(photos / "images", score=str(photos / "masks"), out="x")
    assert 1 <= len(rows_of(Path("x"))) == len(list(Path("x/masks").iterdir())) < 20
    assert not Path("x/score.json").exists() and not list(Path().rglob("*.tmp"))


def test_a_score_of_predictions_that_were_replaced_is_removed(model, photos):
    out = on_cpu(photos / "images", score=str(photos / "masks"))
    assert (out / "score.json").exists()
    on_cpu(photos / "images", overwrite=True)
    assert not (out / "score.json").exists()


def test_what_a_killed_prediction_left_is_removed(model, photos):
    Path("x").mkdir()
    Path("x/.shares.csv.tmp").write_text("half")
    on_cpu(photos / "images", out="x")
    assert not list(Path().rglob("*.tmp"))


@pytest.mark.slow
def test_too_little_memory_is_explained(model):
    draw_scene(1, 2000)[0].save("large.png")
    Path("limited.py").write_text("""
import resource
from pathlib import Path

import predict
from common.cli import cli

def limited(*args, whole=predict.predicted):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, -1))
    return whole(*args)

predict.predicted = limited
cli(predict.main)
""")
    flags = ["large.png", "--device", "cpu", "--own-size", "--max-pixels", 5_000_000]
    result = python(Path("limited.py").absolute(), *flags, PYTHONPATH=str(REPOSITORY))
    assert "try --max-pixels 1250000, or a smaller --image-size" in one_sentence(result)
    assert not [path for path in Path().rglob("predictions/**/*") if path.is_file()]


def test_a_small_file_that_claims_to_be_a_huge_image_is_refused(model):
    for name, side in (("bomb.png", 20_000), ("second.png", 32_000)):
        Image.new("1", (side, side)).save(name)
    with pytest.raises(UserError, match=r"bomb\.png cannot be read .*limit of 268435456 pixels"):
        on_cpu("bomb.png")
    with pytest.raises(UserError, match=r"none of the images could be read"):
        on_cpu(".")


def test_large_images_are_in_memory_one_at_a_time(photos, monkeypatch):
    """However slowly they are used, none is read before the one before was asked for."""
    monkeypatch.setattr(stream, "LARGE", 48 * 48 - 1)
    read_so_far = []
    items = [Item(str(i), photos / f"images/{i}.jpg", written=str(i)) for i in range(5)]
    with ThreadPoolExecutor(2) as pool:
        for number, _ in enumerate(stream.ahead(pool, lambda item: read_so_far.append(item.name), items), start=1):
            assert len(read_so_far) == number


# scores


def test_a_score_is_taken_at_the_images_own_size_by_the_projects_definitions(model, photos, capsys):
    out = on_cpu(photos / "images", score=str(photos / "masks"))
    matrix = ConfusionMatrix(6)
    for i in range(5):
        pair = (out / "masks" / f"{i}.png", photos / "masks" / f"{i}.png")
        prediction, target = (torch.from_numpy(np.asarray(open_image(Path(path))).astype(np.int64)) for path in pair)
        assert target.shape == (48, 48) and VOID in target
        matrix.update(prediction[None], target[None])
    recorded = json.loads((out / "score.json").read_text())
    assert recorded["scores"] == matrix.scores() and recorded["floor"] == matrix.floor().scores()
    printed = capsys.readouterr().out
    assert all(f"{name:<45}{value:>14.4f}" in printed for name, value in matrix.scores().items())
    assert float(rows_of(out)[0]["mIoU"]) >= 0


def test_true_masks_are_read_as_the_training_read_them(photos):
    label_map = {"numbers": {0: 0, 255: 1}, "colors": {}, "palettes_are_colors": False}
    write_checkpoint(Path("best_tiny.pt"), label_map=label_map)
    for path in (photos / "masks").iterdir():
        Image.fromarray(np.full((48, 48), 255, dtype=np.uint8)).save(path)
    out = on_cpu(photos / "images", score=str(photos / "masks"))
    assert json.loads((out / "score.json").read_text())["classes_in_target"] == 1  # 255 is no void


def test_one_image_is_scored_by_one_mask(model, photos):
    out = on_cpu(photos / "images/3.jpg", score=str(photos / "masks/3.png"))
    assert json.loads((out / "score.json").read_text())["images"] == 1


def test_the_test_images_of_a_training_are_scored_alone(model, photos, capsys):
    Path("runs/tiny").mkdir(parents=True)
    Path("runs/tiny/splits.json").write_text(json.dumps({"train": ["0", "1"], "val": ["2"], "test": ["3", "4"]}))
    out = on_cpu(photos / "images", score=str(photos / "masks"), split="test")
    assert [row["image"] for row in rows_of(out)] == ["3.jpg", "4.jpg"]
    assert "training images" not in capsys.readouterr().out
    on_cpu(photos / "images", score=str(photos / "masks"), out="all")
    assert "2 of the 5 images have the names of training images" in capsys.readouterr().out


BAD_INPUT = {
    "missing image": (lambda p: {"images": p / "nothing.jpg"}, r"nothing\.jpg is missing"),
    "no image": (lambda p: {"images": p / "notes.txt"}, r"notes\.txt cannot be read"),
    "no images": (lambda p: {"images": p / "empty"}, r"empty holds no image"),
    "only broken images": (lambda p: {"images": p / "broken"}, r"none of the images could be read: .*1\.jpg cannot be"),
    "no masks": (lambda p: {"images": p / "images", "score": str(p / "nowhere")}, r"--score .*nowhere is no folder"),
    "a mask too few": (
        lambda p: {"images": p / "images", "score": str(p / "few")},
        r"1\.jpg \(and 3 more\) has no mask",
    ),
    "masks of another size": (
        lambda p: {"images": p / "images/0.jpg", "score": str(p / "few/0.png")},
        "is 9x9 pixels but",
    ),
    "no record": (lambda p: {"images": p / "images", "split": "test"}, r"--split test needs runs/tiny/splits\.json"),
    "no checkpoint": (lambda p: {"images": p / "images", "checkpoint": "best_no.pt"}, r"best_no\.pt is missing"),
    "a tile too small": (
        lambda p: {"images": p / "images", "max_pixels": 100},
        "--max-pixels 100 must be at least 1024",
    ),
    "two sizes": (lambda p: {"images": p / "images", "own_size": True, "image_size": 9}, "exclude each other"),
}


@pytest.mark.parametrize("problem", BAD_INPUT)
def test_bad_input_ends_in_one_sentence_and_leaves_nothing(model, photos, problem):
    (photos / "notes.txt").write_text("no image")
    for name in ("empty", "broken", "few"):
        (photos / name).mkdir()
    (photos / "broken/1.jpg").write_text("no image")
    write_palette_mask(photos / "few/0.png", np.zeros((9, 9), dtype=np.uint8))
    arguments, message = BAD_INPUT[problem]
    with pytest.raises(UserError, match=message) as error:
        on_cpu(**arguments(photos))
    assert "\n" not in str(error.value) and not [path for path in Path().rglob("predictions/**/*") if path.is_file()]


def test_the_newest_checkpoint_is_taken_and_that_is_said(photos, capsys):
    with pytest.raises(UserError, match=r"no best_\*\.pt in .*; name one with --checkpoint"):
        on_cpu(photos / "images")
    for age, name in enumerate("cab"):
        write_checkpoint(Path(f"best_{name}.pt"))
        os.utime(f"best_{name}.pt", (9 - age, 9 - age))
    assert on_cpu(photos / "images/0.jpg") == Path("predictions/c/0")
    assert "best_c.pt is the newest of 3 models here; --checkpoint names another" in capsys.readouterr().out
    assert on_cpu(photos / "images/0.jpg", checkpoint="best_b.pt") == Path("predictions/b/0")


def test_a_mistyped_flag_ends_in_one_sentence():
    assert "error: " in one_sentence(python("predict.py", "x.jpg", "--chekpoint", "best_x.pt"))


def test_ctrl_c_leaves_a_table_of_what_was_done(model, photos):
    for i in range(5, 400):
        shutil.copy(photos / "images/0.jpg", photos / f"images/{i}.jpg")
    command = [
        sys.executable,
        REPOSITORY / "predict.py",
        photos / "images",
        "--image-size",
        "128",
        "--tta",
        "--device",
        "cpu",
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # background jobs ignore it
    )
    while not list(Path().rglob("overlays/0.png")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 130 and not errors, errors
    assert "interrupted: " in output and " of 400 images in " in output
    folder = Path("predictions/tiny/images")
    assert 1 <= len(rows_of(folder)) == len(list((folder / "masks").iterdir())) < 400
    assert not list(Path().rglob("*.tmp"))


def test_reading_leaves_the_list_of_images_small(photos):
    item = Item("0", photos / "images/0.jpg", written="0")
    ready = read(item, None, LabelMap.plain(PALETTE), skip=True)
    assert ready.pixels.shape == (48, 48, 3) and item.image is None and item.pixels is None


# what the network sees


@pytest.mark.parametrize("size", [(50, 70), (7, 300), (33, 5)])
def test_enlarging_in_bands_is_enlarging(size, monkeypatch):
    monkeypatch.setattr(inference, "BAND", 1000)
    logits = torch.randn(6, 12, 17)
    whole = F.interpolate(logits[None], size, mode="bilinear", align_corners=False).argmax(1)[0]
    assert (classes_at(logits, size) == whole.numpy()).mean() > 0.999


@pytest.mark.parametrize(("length", "tile"), [(10, 10), (11, 10), (100, 32), (97, 64), (1000, 32)])
def test_tiles_cover_everything_once_and_keep_their_distance(length, tile):
    parts = spans(length, tile)
    assert [part[2] for part in parts[1:]] == [part[3] for part in parts[:-1]]
    assert parts[0][2] == 0 and parts[-1][3] == length
    for start, end, first, last in parts:
        assert end - start == tile and (first - start >= tile // 8 or start == 0)
        assert end - last >= tile // 8 or end == length


def test_tiles_see_what_the_whole_shows():
    brightness = nn.Conv2d(3, 2, kernel_size=1)  # looks at single pixels: its classes are "dark" and "bright"
    nn.init.constant_(brightness.weight, 1)
    brightness.weight.data[0], brightness.bias.data = -brightness.weight.data[0], torch.tensor([1.5, -1.5])
    pixels = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    whole = look(brightness, [pixels], started())[0].argmax(0)
    assert 0.4 < whole.float().mean() < 0.6
    assert (classes_by_tiles(brightness, pixels, started(), most=64 * 64) == whole.numpy()).all()


def test_an_image_beyond_the_budget_is_cut_into_tiles(photos):
    model = write_checkpoint(Path("best_tiny.pt"))
    draw_scene(1, 130)[0].save("large.png")
    whole = np.asarray(open_image(on_cpu("large.png", own_size=True) / "masks/large.png"))
    tiles = np.asarray(open_image(on_cpu("large.png", own_size=True, max_pixels=8192, out="t") / "masks/large.png"))
    assert 0.8 < (whole == tiles).mean() < 1
    assert (whole == predict(model, open_image(Path("large.png")), (130, 130), started())).all()
    enlarged = open_image(on_cpu("large.png", image_size=160, max_pixels=8192, out="s") / "masks/large.png")
    assert enlarged.size == (130, 130)


def test_averaging_gives_a_mirrored_image_a_mirrored_prediction(model):
    pixels = np.array(draw_scene(1, 64)[0])
    model, _ = load_model(Path("best_tiny.pt"))
    straight = look(model, [pixels], started(), tta=True)
    mirrored = look(model, [np.ascontiguousarray(pixels[:, ::-1])], started(), tta=True)
    assert torch.allclose(straight, mirrored.flip(3), atol=1e-5)
    assert torch.allclose(straight.sum(1), torch.ones(1, 64, 64))  # probabilities
    alone = look(model, [pixels], started())
    assert not torch.allclose(alone.softmax(1), straight, atol=1e-3)


def test_tta_changes_what_is_written(model):
    draw_scene(1, 64)[0].save("x.png")
    plain, averaged = (open_image(on_cpu("x.png", out=str(t), tta=t) / "masks/x.png") for t in (False, True))
    assert 0.5 < (np.asarray(plain) == np.asarray(averaged)).mean() < 1


# overlays


def test_in_the_legend_a_white_class_differs_from_one_that_is_not_tinted():
    classes = np.zeros((400, 600), dtype=np.uint8)
    for color in ((0, 0, 0), (255, 255, 255)):
        inside = np.asarray(overlay(Image.new("RGB", (600, 400)), classes, ["one"], [color]))[407:418, 7:18]
        assert (inside == 255).any() and (inside != 255).any() == (color == (0, 0, 0))


def test_the_overlay_tints_all_but_black_classes_and_names_them_below():
    image = Image.new("RGB", (600, 400), (100, 100, 100))
    classes = np.zeros((400, 600), dtype=np.uint8)
    classes[:, 300:] = 1
    picture = np.asarray(overlay(image, classes, CLASSES, PALETTE)).astype(int)
    assert (picture[100, 100] == 100).all()
    assert abs(picture[100, 500] - (100 + np.array(PALETTE[1])) / 2).max() <= 1
    assert (picture[100, 299] == 255).all()  # the outline
    legend = picture[400:]
    assert ((legend == PALETTE[1]).all(2).sum() > 50) and not (legend == PALETTE[2]).all(2).any()
    assert (legend.sum(2) < 100).sum() > 100  # letters


@pytest.mark.parametrize(
    ("size", "expected"), [((40, 30), (480, 360)), ((3000, 1500), (1600, 800)), ((10, 900), (240, 900))]
)
def test_an_overlay_has_a_size_that_can_be_looked_at(size, expected):
    picture = overlay(Image.new("RGB", size), np.zeros(size[::-1], dtype=np.uint8), CLASSES, PALETTE)
    assert picture.width == expected[0] and expected[1] < picture.height < expected[1] + 80


def test_a_legend_of_many_long_names_has_several_lines():
    names = [f"a rather long name of class {i}" for i in range(150)]
    classes = (np.arange(300 * 500) % 150).astype(np.uint8).reshape(300, 500)
    palette = [(i, 100, 255 - i) for i in range(150)]
    picture = overlay(Image.new("RGB", (500, 300)), classes, names, palette)
    assert picture.width == 500 and picture.height > 800
