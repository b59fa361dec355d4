import json
from pathlib import Path

import numpy as np
import pytest
from conftest import one_sentence, python, write_checkpoint, write_folder
from PIL import Image

from common.cli import cli
from common.datasets.shapes import CLASSES
from common.labels import VOID
from common.system.errors import UserError
from tools import predict, score

COLORS = np.array([(0, 0, 64), (200, 0, 0), (0, 90, 0)], dtype=np.uint8)


def save(folder: Path, masks: dict[str, np.ndarray]) -> Path:
    """Write masks by name as PNGs; return the folder."""
    for name, mask in masks.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def masks() -> tuple[dict, dict]:
    """Predictions and true masks of different sizes: noise, a third of it right, with void in what is true."""
    rng, predicted, true = np.random.default_rng(0), {}, {}
    for i, name in enumerate(("a", "trip to Köln/b", "trip to Köln/c.d", "e")):
        target = rng.integers(0, 3, (20 + i, 30)).astype(np.uint8)
        predicted[name] = np.where(rng.random(target.shape) < 1 / 3, target, rng.integers(0, 2, target.shape, np.uint8))
        true[name] = np.where(rng.random(target.shape) < 0.1, np.uint8(VOID), target)
    return predicted, true


@pytest.fixture
def folders(tmp_path, masks) -> tuple[Path, Path]:
    return save(tmp_path / "predicted", masks[0]), save(tmp_path / "true", masks[1])


def miou_of(predictions, targets) -> float:
    """Compute mIoU in another way: class by class, over the pixels of all masks in a row."""
    prediction, target = (np.concatenate([part.ravel() for part in parts]) for parts in (predictions, targets))
    prediction, target = prediction[target != VOID], target[target != VOID]
    ious = [
        np.mean((prediction == c) & (target == c)) / np.mean((prediction == c) | (target == c))
        for c in np.unique(target)
    ]
    return float(np.mean(ious))


def test_the_scores_are_those_that_numpy_computes_class_by_class_printed_and_written(folders, masks, capsys):
    cli(score.main, [*map(str, folders), "--json", "out/scores.json"])
    predictions, targets = ([part[name] for name in sorted(part)] for part in masks)
    miou = miou_of(predictions, targets)
    most = np.bincount(np.concatenate([t[t != VOID] for t in targets])).argmax()
    floor = miou_of([np.full_like(t, most) for t in targets], targets)
    recorded = json.loads(Path("out/scores.json").read_text())
    assert recorded["masks"] == 4 and recorded["classes_in_target"] == 3
    assert recorded["scores"]["mIoU"] == pytest.approx(miou, abs=1e-12)
    assert recorded["floor"]["mIoU"] == pytest.approx(floor, abs=1e-12) and 0.1 < floor < miou < 0.5
    assert recorded["image_miou"] == pytest.approx(
        {name: miou_of([masks[0][name]], [masks[1][name]]) for name in masks[0]}
    )
    printed = capsys.readouterr().out
    assert f"{'mIoU':<45}{miou:>14.4f}{floor:>18.4f}" in printed and "all class" in printed
    assert "{:.4f} to {:.4f}".format(*recorded["interval"]) in printed


def test_it_scores_what_predict_wrote_as_predict_does(tmp_path):
    write_checkpoint(Path("best_tiny.pt"))
    photos = write_folder(tmp_path / "photos", 5)
    (photos / "classes.txt").write_text("\n".join(CLASSES))
    out = predict.main([photos / "images"], score=str(photos / "masks"), device="cpu", precision="fp32")
    ours, theirs = score.main(out / "masks", photos / "masks"), json.loads((out / "score.json").read_text())
    assert len(theirs["scores"]) == 9 and ours == theirs


def test_colours_are_read_by_the_classes_txt_beside_the_true_masks_and_numbers_if_asked_for(tmp_path, masks, capsys):
    expected = score.main(save(tmp_path / "p", masks[0]), save(tmp_path / "t", masks[1]))["scores"]
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[:3] = COLORS
    palette[VOID] = 9, 9, 9
    folder, numbers = tmp_path / "photos", tmp_path / "p"
    predicted, true = (
        save(folder / kind, {name: palette[mask] for name, mask in part.items()})
        for kind, part in zip(("predicted", "masks"), masks, strict=True)
    )
    with pytest.raises(UserError, match=r"photos/classes\.txt must list"):
        score.main(predicted, true)
    lines = [f"{name} {' '.join(map(str, color))}" for name, color in zip("xyz", COLORS, strict=True)]
    (folder / "classes.txt").write_text("\n".join([*lines, "ignore 9 9 9"]))
    assert score.main(predicted, true)["scores"] == expected
    assert score.main(predicted, true)["iou"].keys() == {"x", "y", "z"}
    assert score.main(numbers, true, numbers=True)["scores"] == expected
    with pytest.raises(UserError, match=r"a\.png holds the value 0 .*, and --numbers reads predictions as"):
        score.main(numbers, true)


def test_masks_of_0_and_255_are_two_classes_in_both_folders(tmp_path):
    halves = np.repeat(np.array([[0, 255]], dtype=np.uint8), 8, axis=1)
    true = save(tmp_path / "true", {"a": halves})
    assert score.main(save(tmp_path / "same", {"a": halves}), true)["scores"]["mIoU"] == 1
    assert score.main(save(tmp_path / "foreground", {"a": halves | 255}), true)["scores"]["mIoU"] == 0.25
    assert score.main(save(tmp_path / "ones", {"a": halves & 1}), true, numbers=True)["scores"]["mIoU"] == 1


def test_predictions_of_0_and_255_are_scored_against_masks_of_0_and_1_and_that_is_said(tmp_path, capsys):
    ones = np.repeat(np.array([[0, 1]], dtype=np.uint8), 8, axis=1)
    true = save(tmp_path / "true", {"a": ones, "b": ones})
    predicted = save(tmp_path / "predicted", {"a": ones * np.uint8(255), "b": 0 * ones})
    expected = score.main(save(tmp_path / "numbers", {"a": ones, "b": 0 * ones}), true)["scores"]
    assert score.main(predicted, true)["scores"] == expected and expected["pixel accuracy"] == 0.75
    assert "the predictions hold 0 and 255 alone, the true masks 0 and 1: 255 is taken for 1" in capsys.readouterr().out
    save(predicted, {"b": ones})
    with pytest.raises(UserError, match=r"predicted/a\.png has void pixels"):
        score.main(predicted, true)
    with pytest.raises(UserError, match=r"true/a\.png holds the value 1; expected 0, or 255; .* --numbers reads"):
        score.main(true, save(tmp_path / "other", {"a": ones * np.uint8(255)}))


def test_a_prediction_that_no_mask_asks_for_is_said_and_left_out(folders, masks, capsys):
    expected = score.main(*folders)
    save(folders[0], {"more/f": masks[0]["a"], "more/g": masks[0]["a"]})
    assert score.main(*folders) == expected
    assert "2 predictions have no mask in" in (out := capsys.readouterr().out) and "more/f.png" in out


def test_a_prediction_that_is_missing_ends_it_with_status_1(folders):
    for name in ("e", "trip to Köln/c.d"):
        (folders[0] / f"{name}.png").unlink()
    result = python("tools.score", *folders, "--json", "scores.json")
    assert result.returncode == 1 and not Path("scores.json").exists()
    assert "2 of 4 masks have no prediction; first" in (sentence := one_sentence(result)) and "e.png" in sentence


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p, t: save(p, {"e": np.zeros((30, 23), np.uint8)}), r"predicted/e\.png is 23x30 pixels but .* 30x23"),
        (lambda p, t: save(p, {"e": np.full((23, 30), 3, np.uint8)}), r"e\.png holds the value 3; expected 0\.\.2"),
        (lambda p, t: save(p, {"e": np.full((23, 30), 255, np.uint8)}), r"predicted/e\.png has void pixels"),
        (lambda p, t: (p / "e.png").write_bytes(b"hello"), r"predicted/e\.png cannot be read"),
        (lambda p, t: (t / "e.png").write_bytes(b"hello"), r"true/e\.png cannot be read"),
        (lambda p, t: (p / "e.jpg").write_bytes(b"hello"), r"e\.jpg and .*e\.png have the same name"),
        (lambda p, t: [path.unlink() for path in t.rglob("*.png")], r"true is missing, or holds no image"),
        (lambda p, t: [path.rename(path.with_suffix(".npy")) for path in t.rglob("*.png")], r"true holds 4 \.npy"),
        (lambda p, t: save(t, {"e": np.full((23, 30), 9, np.uint8)}), r"the values 9 .*classes\.txt must list"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_named_in_one_sentence(folders, damage, message):
    damage(*folders)
    with pytest.raises(UserError, match=message) as error:
        score.main(*folders)
    assert "\n" not in str(error.value)


def test_a_classes_txt_that_is_not_there_is_named(folders):
    with pytest.raises(UserError, match=r"--classes no\.txt is missing"):
        score.main(*folders, classes="no.txt")
