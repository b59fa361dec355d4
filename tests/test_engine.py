import csv
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, python, started
from torch import nn

import train
import train_4_c
import train_4_e
from benchmarks.sync import Strict
from common import checkpoint
from common.datasets import VOID, load
from common.engine import evaluate, fit, train_one_epoch
from common.history import best_row, kept_row, last_epoch, out_of_patience, read_history
from common.loader import Loader
from common.losses import CrossEntropy, Dice
from common.models import MODELS, DilatedFCN
from common.run import Run
from common.system.errors import UserError, torch_errors


def run_train(root, epochs, script=train, name="test", **settings):
    """Run a script's main on the small VOC data."""
    run = Run(device="cpu", precision="fp32", name=name, data_root=root, **settings)
    return script.main("voc2007", image_size=32, epochs=epochs, batch_size=4, run=run)


@pytest.fixture
def data(voc_root, without_pictures):
    """A started run, and the small VOC data: to train on, to validate on and to test on."""
    run = started(data_root=voc_root)
    return run, *load("voc2007", 32, run)


def fitted(data, model, criterion, epochs=1, batch_size=4, **options) -> list[dict]:
    """Train `model` at a rate of 0.1; return the history."""
    run, train_set, val_set, _ = data
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loaders = Loader(train_set, batch_size, run), Loader(val_set, 4, run)
    return fit(model, *loaders, criterion, optimizer, epochs=epochs, run=run, **options)


def comparable(path):
    """Return a checkpoint's contents but for the time it took and the name of the run."""
    contents = checkpoint.load(Path(path))
    contents.pop("run")
    for row in [*contents["history"], contents["scores"]]:
        for key in ("seconds", "train_images_per_second"):
            row.pop(key, None)
    return contents


def same(a, b) -> bool:
    """Compare nested dicts, lists and tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


def test_a_run_leaves_what_it_promises_and_resumed_when_finished_is_scored_again(voc_root, small_network, capsys):
    result = run_train(voc_root, 2, tensorboard=True)
    said = capsys.readouterr().out
    with Path("runs/test/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]  # 0 is untrained
    assert rows[0].keys() >= {"lr", "train_loss", "val_loss", "train_miou", "val_miou", "seconds"}
    assert rows[0]["train_loss"] == "nan" and 2 < float(rows[0]["val_loss"]) < 5
    assert json.loads(Path("runs/test/config.json").read_text())["experiment"]["batch_size"] == 4
    test = json.loads(Path("runs/test/test.json").read_text())
    assert test["scores"] == result["scores"]
    right, pixels = (sum(row[i] for i, row in enumerate(test["confusion"])), sum(map(sum, test["confusion"])))
    assert right / pixels == test["scores"]["pixel accuracy"]
    with Path("runs/test/classes.csv").open() as file:
        classes = {row["class"]: row for row in csv.DictReader(file)}
    assert {name: row["IoU"] and float(row["IoU"]) for name, row in classes.items()} == {
        name: "" if iou is None else round(iou, 6) for name, iou in test["iou"].items()
    }
    assert classes["background"]["images"] == "7" and "plots/test*.png" in said
    for path in (
        "plots/test.png",
        "plots/test_confusion.png",
        "plots/test_predictions.png",
        "plots/test_train_val.png",
        "best_test.pt",
        "runs/test/last.pt",
    ):
        assert Path(path).stat().st_size > 1000
    assert list(Path("runs/test").glob("events.out.tfevents.*"))
    assert not list(Path().rglob("*.tmp"))
    capsys.readouterr()
    assert run_train(voc_root, 2, resume=True) == result
    assert "epoch 1/2" not in capsys.readouterr().out


# train_4_c has a schedule, augmentation and class weights as well, train_4_e an optimizer of our own.
@pytest.mark.parametrize("script", [train, *(pytest.param(s, marks=pytest.mark.slow) for s in (train_4_c, train_4_e))])
def test_a_run_stopped_and_resumed_equals_an_unbroken_one_bit_for_bit(
    voc_root, script, small_network, monkeypatch, without_pictures
):
    whole = run_train(voc_root, 3, script, "whole")
    set_epoch = Loader.set_epoch
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(Loader, "set_epoch", lambda self, number: set_epoch(self, number) if number < 2 else 1 / 0)
        run_train(voc_root, 3, script)
    assert last_epoch(checkpoint.load(Path("runs/test/last.pt"))["history"]) == 1
    assert run_train(voc_root, 3, script, resume=True) == whole | {"run": "test"}
    assert same(comparable("runs/test/last.pt"), comparable("runs/whole/last.pt"))
    assert same(comparable_weights("best_test.pt"), comparable_weights("best_whole.pt"))


def comparable_weights(path):
    return checkpoint.load(Path(path))["weights"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_ends_cleanly_and_can_be_resumed(voc_root, name):
    flags = f"--data-root {voc_root} --image-size 32 --epochs 500 --batch-size 4 --name test --patience 0".split()
    command = [sys.executable, str(REPOSITORY / "train.py"), *flags]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    try:
        deadline = time.monotonic() + 120
        while not Path("runs/test/history.csv").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(getattr(signal, name))
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert "--resume continues from there" in output and "Traceback" not in output
    assert Path("plots/test.png").exists()
    done = last_epoch(checkpoint.load(Path("runs/test/last.pt"))["history"])
    result = python("train.py", *flags[:-1], "1", "--resume")
    assert f"after epoch {done}" in result.stdout and result.returncode == 0, result.stderr


def test_early_stopping_counts_epochs_since_the_best_which_is_never_one_without_a_score():
    mious = [0.9, math.nan, 0.3, 0.2, 0.3, math.nan]  # the first is of the untrained model
    history = [{"epoch": i, "val_miou": miou} for i, miou in enumerate(mious)]
    assert out_of_patience(history, 3) and not out_of_patience(history, 4)
    assert not out_of_patience(history, 0) and not out_of_patience(history[:1], 1)
    assert best_row(history)["epoch"] == 2 and best_row(history[:2])["epoch"] == 1


class Fixed(nn.Module):
    """Predicts class 1 in the left half of every image, 0 in the right."""

    def forward(self, images):
        logits = torch.zeros(len(images), 21, *images.shape[2:])
        logits[:, 1, :, : images.shape[3] // 2] = 5
        return logits


def test_evaluation_is_the_same_for_every_batch_size(data):
    run, _, _, test_set = data
    results = [evaluate(Fixed(), Loader(test_set, size, run), CrossEntropy(), run) for size in (1, 3, 7)]
    assert all(matrix.scores() == results[0][1].scores() for _, matrix in results)
    assert all(loss == pytest.approx(results[0][0], rel=1e-6) for loss, _ in results)
    left = (torch.arange(32) < 16).int().expand_as(test_set.masks)
    right_answers = (test_set.masks == left)[test_set.masks != VOID].float().mean().item()
    assert results[0][1].pixel_accuracy() == pytest.approx(right_answers)


class Fading(nn.Module):
    """Predicts background while its one parameter is positive, class 1 afterwards."""

    def __init__(self, num_classes=21):
        super().__init__()
        self.arguments = {"num_classes": num_classes}
        self.level = nn.Parameter(torch.tensor(0.45))

    def forward(self, images):
        logits = torch.zeros(len(images), 21, *images.shape[2:])
        logits[:, 0] = self.level
        return logits


class Push(nn.Module):
    """A loss that lowers the parameter of Fading by the learning rate at every step."""

    def forward(self, logits, target):
        return logits[:, 0].mean()


@pytest.mark.parametrize(("keep", "epoch", "level"), [("best", 1, 0.15), ("last", 3, -0.45)])
def test_fit_ends_with_the_weights_of_the_epoch_that_is_kept(data, monkeypatch, capsys, keep, epoch, level):
    monkeypatch.setitem(MODELS, "fading", Fading)
    # Three steps an epoch: 0.15 after the first, -0.15, ...
    fitted(data, model := Fading(), Push(), epochs=3, keep=keep)
    assert model.level.item() == pytest.approx(level)
    assert checkpoint.load(Path("best_test.pt"))["epoch"] == epoch
    history = read_history(Path("runs/test"))
    assert kept_row(history)["epoch"] == epoch
    assert ("in epoch 1 of 3; epoch 3 is kept" in capsys.readouterr().out) == (keep == "last")
    assert checkpoint.load(Path("runs/test/last.pt"))["weights"]["level"].item() == pytest.approx(-0.45)


def test_an_epoch_in_the_middle_of_the_schedule_is_not_kept_as_the_last(data):
    with pytest.raises(UserError, match='keep="last" needs all epochs, but patience=2 may stop earlier'):
        fitted(data, Fading(), Push(), epochs=3, keep="last", patience=2)
    assert not list(Path().glob("*.pt"))


def test_a_loss_that_is_not_finite_stops_training_and_names_images_and_learning_rate(data, voc_root):
    run, train_set, _, _ = data
    with pytest.raises(UserError) as error:
        train.main("voc2007", 32, 1, 4, lr=1e20, run=Run(device="cpu", precision="fp32", data_root=voc_root))
    loader = Loader(train_set, 4, run, shuffle=True)
    loader.set_epoch(1)
    names = ", ".join(train_set.names[i] for i in loader.batches()[1].tolist())
    assert str(error.value) == (
        f"the loss is NaN or infinite in batch 2 of 3 of epoch 1 ({names}), at learning rate 1e+20; try a smaller "
        "rate, or clip_norm=1 in fit"
    )


@pytest.mark.parametrize("bad", [1, 2])
def test_a_loss_that_arrives_late_is_told_of_its_own_batch_even_of_the_last_one(data, bad):
    run, train_set, _, _ = data
    loader, batches = Loader(train_set, 4, run), iter(range(3))

    def criterion(logits, masks):
        return logits.mean() * (float("inf") if next(batches) == bad else 1)

    optimizer = torch.optim.SGD((model := nn.Conv2d(3, 21, 1)).parameters(), lr=0.0)
    with pytest.raises(UserError, match=f"in batch {bad + 1} of 3"):  # without a progress bar, nothing looks at losses
        train_one_epoch(model, loader, criterion, optimizer, None, run)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_clipped_gradients_are_no_longer_than_asked_for(voc_root, monkeypatch, without_pictures, precision):
    monkeypatch.setitem(MODELS, "fading", Fading)
    run = started(precision=precision, data_root=voc_root)
    for clip_norm, level in ((0.0, 0.35), (1e-3, 0.45 - 1e-4)):  # the gradient is 1
        fitted((run, *load("voc2007", 32, run)), model := Fading(), Push(), batch_size=12, clip_norm=clip_norm)
        assert model.level.item() == pytest.approx(level)


def small() -> nn.Module:
    """Return a network that is small, for processors are slow in fp16; always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 21, 1))


def in_fp16(voc_root, epochs=1, scale=1.0, precision="fp16", **settings) -> tuple[list[dict], nn.Module]:
    """Train the small network with a loss times `scale`."""
    run = started(precision=precision, data_root=voc_root, **settings)
    model, loss = small(), CrossEntropy()
    sets = load("voc2007", 32, run)
    return fitted((run, *sets), model, lambda *batch: scale * loss(*batch), epochs), model


def test_fp16_learns_what_fp32_does_and_tells_the_loss_as_it_is(voc_root, without_pictures):
    fp16, fp32 = (in_fp16(voc_root, epochs=2, precision=precision)[0] for precision in ("fp16", "fp32"))
    for ours, theirs in zip(fp16[1:], fp32[1:], strict=True):
        assert ours["train_loss"] != theirs["train_loss"] == pytest.approx(ours["train_loss"], rel=1e-3)
    assert fp16[2]["train_loss"] < 0.99 * fp16[1]["train_loss"]


def test_a_step_whose_scaled_gradients_are_beyond_fp16_is_left_out_and_the_scale_halved(voc_root, without_pictures):
    _, model = in_fp16(voc_root, scale=1e6)  # three batches
    assert same([*model.parameters()], [*small().parameters()])
    assert checkpoint.load(Path("runs/test/last.pt"))["scaler"]["scale"] == 2**16 / 2**3


def test_an_fp16_run_that_is_resumed_goes_on_with_its_scale_bit_for_bit(voc_root, without_pictures):
    in_fp16(voc_root, epochs=3, scale=100, name="whole")
    in_fp16(voc_root, epochs=1, scale=100)
    assert checkpoint.load(Path("runs/test/last.pt"))["scaler"]["scale"] < 2**16
    in_fp16(voc_root, epochs=3, scale=100, resume=True)
    assert same(comparable("runs/test/last.pt"), comparable("runs/whole/last.pt"))


def test_a_network_whose_values_are_beyond_fp16_is_stopped_and_told_of_fp32(voc_root):
    run = started(precision="fp16", data_root=voc_root)
    nn.init.constant_((layer := nn.Conv2d(3, 21, 1)).weight, 1e6)
    with pytest.raises(
        UserError,
        match=r"loss is NaN or infinite in batch 1 .* in fit, or --precision fp32: the largest fp16 number is 65504",
    ):
        fitted((run, *load("voc2007", 32, run)), layer, CrossEntropy())


def test_any_loss_that_is_a_scalar_fits_in(data):
    losses = []
    for criterion in (CrossEntropy(), nn.CrossEntropyLoss(ignore_index=VOID), lambda *batch: Dice()(*batch)):
        torch.manual_seed(0)
        losses.append([row["train_loss"] for row in fitted(data, DilatedFCN(21), criterion, epochs=2)[1:]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert 0 < losses[2][1] < losses[2][0] < 1


def test_a_batch_that_is_void_everywhere_changes_the_loss_by_nothing(data):
    data[1].masks = torch.full_like(data[1].masks, VOID)
    row = fitted(data, DilatedFCN(21), CrossEntropy())[1]
    assert row["train_loss"] == 0 and 0 < row["val_loss"] < 10


def test_too_little_memory_is_explained(data):
    with pytest.raises(UserError, match="the memory does not suffice for batches of 4 images; try --batch-size 2"):
        fitted(data, DilatedFCN(21), lambda logits, masks: logits.sum() * torch.empty(2**48).sum())  # a PiB


def test_a_full_gpu_and_a_mask_value_that_it_cannot_name_are_explained_in_a_sentence():
    with pytest.raises(UserError, match=r"not a class of the model; .* --device cpu"), torch_errors(4):
        raise RuntimeError("CUDA error: device-side assert triggered")
    with pytest.raises(UserError, match="--batch-size 2"), torch_errors(4):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_a_kill_between_the_checkpoints_of_an_epoch_loses_nothing(voc_root, small_network, without_pictures):
    run_train(voc_root, 1)
    expected = comparable_weights("best_test.pt")
    Path("best_test.pt").write_bytes(b"of an earlier run")
    run_train(voc_root, 1, resume=True)
    assert same(comparable_weights("best_test.pt"), expected)


def test_a_batch_of_one_image_that_shrinks_to_a_pixel_is_explained(voc_root):
    with pytest.raises(UserError, match="a --batch-size of 2 or more"):
        train.main("voc2007", 32, 1, batch_size=1, run=Run(device="cpu", data_root=voc_root))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_batch_loop_never_waits_for_the_gpu(voc_root):
    run = Run(name="test", device="cuda", data_root=voc_root).start(lambda: None, {})
    train_set, val_set, _ = load("voc2007", 32, run)
    model = train.BasicFCN(21)
    optimizer = torch.optim.AdamW(model.parameters())
    loaders = Strict(Loader(train_set, 4, run, shuffle=True)), Strict(Loader(val_set, 4, run))
    with pytest.raises(RuntimeError, match="synchronizing"):  # so a wait would be noticed
        next(iter(loaders[1]))[0].sum().item()
    torch.cuda.set_sync_debug_mode("default")
    history = fit(model, *loaders, CrossEntropy(), optimizer, epochs=2, run=run)
    assert len(history) == 3  # with the untrained
