import csv
import itertools
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import python, started, write_checkpoint, write_folder, write_palette_mask
from PIL import Image
from torch import nn
from torch.nn import functional as F

from common import inference
from common.cli import cli
from common.datasets.reading import open_image
from common.datasets.shapes import CLASSES, PALETTE, draw_scene
from common.inference import FlipsAndScales, predict, predict_logits, resize, upsample_argmax
from common.labels import VOID
from common.metrics import ConfusionMatrix
from common.reporting.overlay import overlay
from common.system.errors import UserError
from tools.predict import main


def on_cpu(images, **options):
    return main([Path(images)], **{"device": "cpu", "precision": "fp32", **options})


def mask_of(image, **options):
    """Return the mask that is predicted for the image at the path `image`."""
    return np.asarray(open_image(on_cpu(image, **options) / "masks" / f"{Path(image).stem}.png"))


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
    result = python("tools.predict", "at the sea.jpg", "--device", "cpu", "--precision", "fp32")
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
    assert "1 of 1 images" in result.stdout and not result.stderr


def test_a_folder_is_searched_in_depth_and_what_cannot_be_read_is_named_and_skipped(model, photos, capsys):
    folder = photos / "images"
    (folder / "trip to Köln").mkdir()
    open_image(folder / "0.jpg").convert("L").rotate(90).save(folder / "trip to Köln/GROSS.PNG")
    open_image(folder / "1.jpg").convert("CMYK").resize((700, 20)).save(folder / "wide.tiff")
    (folder / "notes.txt").write_text("no image")
    (folder / "broken.jpg").write_text("no image either")
    out = on_cpu(folder)
    assert out == Path("predictions/tiny/images")
    written = [f"{name}.png" for name in (*range(5), "trip to Köln/GROSS", "wide")]
    for kind in ("masks", "overlays"):
        assert sorted(path.relative_to(out / kind).as_posix() for path in (out / kind).rglob("*.*")) == written
    rows = [row["image"] for row in rows_of(out)]
    assert rows == [*(f"{i}.jpg" for i in range(5)), "trip to Köln/GROSS.PNG", "wide.tiff"]
    assert open_image(out / "masks/wide.png").size == (700, 20)
    printed = capsys.readouterr().out
    assert "skipped 2 files" in printed and "notes.txt" in printed and "broken.jpg cannot be read" in printed


def test_nothing_is_overwritten_without_being_asked(model, photos):
    out = on_cpu(photos / "images")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}
    with pytest.raises(UserError, match=r"images/masks is there already; add --overwrite"):
        on_cpu(photos / "images")
    with pytest.raises(UserError, match="masks is there already"):  # true masks
        on_cpu(photos / "images", out=str(photos))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.*")} == before
    on_cpu(photos / "images", overwrite=True)
    assert all(path.stat().st_mtime_ns > time for path, time in before.items())


def test_several_images_and_folders_are_predicted_at_once(model, photos):
    draw_scene(1, 48)[0].save("a.jpg")
    draw_scene(2, 48)[0].save("b.jpg")
    cli(main, ["a.jpg", "b.jpg", str(photos / "images"), "--device", "cpu"])
    written = {path.stem for path in Path("predictions/tiny/a_and_2_more/masks").iterdir()}
    assert written == {"a", "b", *"01234"}


def test_an_earlier_prediction_leaves_nothing_beside_a_new_one(model, photos):
    out = on_cpu(photos / "images", out="out")
    (photos / "images/4.jpg").unlink()
    (out / "masks/mine.png").write_text("")  # no prediction of ours
    on_cpu(photos / "images", out="out", overwrite=True)
    assert sorted(path.name for path in (out / "masks").iterdir()) == ["0.png", "1.png", "2.png", "3.png", "mine.png"]
    assert sorted(path.name for path in (out / "overlays").iterdir()) == ["0.png", "1.png", "2.png", "3.png"]


def test_ctrl_c_leaves_a_table_of_what_was_done(model, photos, monkeypatch, capsys):
    def interrupted(network, image, *options, number=itertools.count()):
        if next(number) == 3:
            raise KeyboardInterrupt
        return predict(network, image, *options)

    monkeypatch.setattr("tools.predict.predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        on_cpu(photos / "images")
    assert "interrupted: 3 of 5 images" in capsys.readouterr().out
    folder = Path("predictions/tiny/images")
    assert len(rows_of(folder)) == len(list((folder / "masks").iterdir())) == 3
    assert not list(Path().rglob("*.tmp"))


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
    on_cpu(photos / "images", overwrite=True)
    assert not (out / "score.json").exists()  # it was of other predictions


def test_true_masks_are_read_as_the_training_read_them(photos):
    label_map = {"numbers": {0: 0, 255: 1}, "colors": {}, "palettes_are_colors": False}
    write_checkpoint(Path("best_tiny.pt"), label_map=label_map)
    for path in (photos / "masks").iterdir():
        Image.fromarray(np.full((48, 48), 255, dtype=np.uint8)).save(path)
    out = on_cpu(photos / "images", score=str(photos / "masks"))
    assert json.loads((out / "score.json").read_text())["classes_in_target"] == 1  # 255 is no void


def test_an_image_whose_mask_cannot_be_used_is_named_and_left_out(model, photos, capsys):
    write_palette_mask(photos / "masks/3.png", np.zeros((9, 9), dtype=np.uint8))
    write_palette_mask(photos / "masks/4.png", np.full((48, 48), 77, dtype=np.uint8))
    out = on_cpu(photos / "images", score=str(photos / "masks"))
    printed = capsys.readouterr().out
    for text in ("skipped 2 files", "3.png is 9x9 pixels but", "4.png holds the value 77"):
        assert text in printed
    assert json.loads((out / "score.json").read_text())["masks"] == len(rows_of(out)) == 3


def test_the_test_images_of_a_training_are_scored_alone(model, photos, capsys):
    Path("runs/tiny").mkdir(parents=True)
    Path("runs/tiny/splits.json").write_text(json.dumps({"train": ["0", "1"], "val": ["2"], "test": ["3", "4"]}))
    out = on_cpu(photos / "images", score=str(photos / "masks"), split="test")
    assert [row["image"] for row in rows_of(out)] == ["3.jpg", "4.jpg"]
    assert "training images" not in capsys.readouterr().out
    on_cpu(photos / "images", score=str(photos / "masks"), out="all")
    assert "2 of these images have the name of a training image; --split test" in capsys.readouterr().out


BAD_INPUT = [
    ({"images": "../photos/twins"}, r"0\.jpg and .*0\.png would both be written to 0\.png"),
    ({"images": "../photos/notes.txt"}, r"none of the images could be used: .*notes\.txt cannot be read"),
    ({"images": "../photos/empty"}, r"empty is missing, or holds no image"),
    ({"score": "../photos/nowhere"}, r"nowhere is missing, or holds no image"),
    ({"split": "test"}, r"--split test needs runs/tiny/splits\.json"),
    ({"checkpoint": "best_no.pt"}, r"best_no\.pt is missing"),
    ({"own_size": True, "image_size": 9}, "exclude each other"),
    ({"max_pixels": 1599, "tta": True}, "--max-pixels 1599 must be at least 1600 with --tta"),
]


@pytest.mark.parametrize(("options", "message"), BAD_INPUT)
def test_bad_input_ends_in_one_sentence_and_leaves_nothing(model, photos, options, message):
    (photos / "notes.txt").write_text("no image")
    (photos / "empty").mkdir()
    (photos / "twins").mkdir()
    for name in ("0.jpg", "0.png"):
        shutil.copy(photos / "images/0.jpg", photos / "twins" / name)
    with pytest.raises(UserError, match=message) as error:
        on_cpu(**{"images": "../photos/images"} | options)
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


# what the network sees


def test_upsampling_in_bands_is_upsampling(monkeypatch):
    monkeypatch.setattr(inference, "BAND", 1000)
    logits = torch.randn(1, 6, 12, 17)
    expected = F.interpolate(logits, (50, 70), mode="bilinear", align_corners=False).argmax(1)[0]
    assert (upsample_argmax(logits, (50, 70)) == expected.numpy()).mean() > 0.999


def brightness() -> nn.Conv2d:
    """Return a model that looks at single pixels: its classes are "dark" and "bright"."""
    model = nn.Conv2d(3, 2, kernel_size=1)
    nn.init.constant_(model.weight, 1)
    model.weight.data[0], model.bias.data = -model.weight.data[0], torch.tensor([1.5, -1.5])
    return model


def test_a_sliding_window_sees_what_the_whole_shows():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8))
    whole = predict(brightness(), image, (150, 200), started())
    assert 0.4 < whole.mean() < 0.6
    assert (predict(brightness(), image, (150, 200), started(), max_pixels=64 * 64) == whole).all()


@pytest.mark.parametrize("tta", [False, True])
def test_windows_draw_outlines_as_fine_as_the_whole_does_and_never_show_more_than_max_pixels(tta):
    rows, columns = np.mgrid[:400, :600]
    ramp = 0.5 + (2 * (rows - 200) + (columns - 300)) / 1600
    image = Image.fromarray((255 * ramp).round().astype(np.uint8)).convert("RGB")
    model, shown = brightness(), []
    model.register_forward_hook(lambda model, images, logits: shown.append(math.prod(images[0].shape[2:])))
    wrong = [
        (predict(model, image, (96, 144), started(), tta, limit) != (ramp > 0.5)).sum() for limit in (math.inf, 6400)
    ]
    assert max(shown) > 96 * 144 - 1 and 3000 < max(shown[6 if tta else 1 :]) <= 6400
    assert wrong[1] < 1.2 * wrong[0] < 600


def test_over_an_image_of_too_many_pixels_slides_a_window(model):
    draw_scene(1, 130)[0].save("large.png")
    whole = mask_of("large.png", own_size=True)
    assert (whole == predict(model, open_image(Path("large.png")), (130, 130), started())).all()
    assert 0.8 < (whole == mask_of("large.png", own_size=True, max_pixels=8192, out="x")).mean() < 1
    assert mask_of("large.png", image_size=160, max_pixels=8192, out="y").shape == (130, 130)


def test_averaging_gives_a_mirrored_image_a_mirrored_prediction_and_changes_what_is_written(model):
    draw_scene(1, 64)[0].save("x.png")
    image, averaged = resize(open_image(Path("x.png")), (64, 64)), FlipsAndScales(model)
    straight = predict_logits(averaged, image, started())
    assert torch.allclose(straight, predict_logits(averaged, image.flip(3), started()).flip(3), atol=1e-4)
    assert torch.allclose(straight.exp().sum(1), torch.ones(1, 64, 64))  # probabilities
    assert 0.5 < (mask_of("x.png") == mask_of("x.png", tta=True, out="averaged")).mean() < 1


# overlays


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
