import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, SHARED, needs_shared, python, started
from torch import nn

import train
import train_4_c
from common import checkpoint
from common.checkpoint import best_row
from common.datasets import VOID, load
from common.engine import evaluate, fit, out_of_patience
from common.loader import Loader
from common.losses import CrossEntropy
from common.models import MODELS
from common.run import Run
from common.system.errors import UserError

FP32 = {"device": "cpu", "precision": "fp32", "name": "test"}


def run_train(voc_root, epochs, **settings):
    """Run train.py's main on the small VOC data."""
    run = Run(**{**FP32, "data_root": voc_root, **settings})
    return train.main("voc2007", image_size=32, epochs=epochs, batch_size=4, run=run)


def comparable(path):
    """Return a checkpoint's contents but for the time it took."""
    contents = checkpoint.load(Path(path))
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


class KilledError(Exception):
    pass


def stopped_after(epoch: int, monkeypatch):
    """Make training die as by a kill at the start of the epoch after `epoch`."""
    original = Loader.set_epoch

    def set_epoch(self, number):
        if number > epoch:
            raise KilledError
        original(self, number)

    monkeypatch.setattr(Loader, "set_epoch", set_epoch)
    return KilledError


def test_a_run_leaves_what_it_promises(voc_root):
    result = run_train(voc_root, 2, tensorboard=True)
    with Path("runs/test/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert rows[0].keys() >= {"lr", "train_loss", "val_loss", "train_miou", "val_miou", "seconds"}
    assert json.loads(Path("runs/test/config.json").read_text())["experiment"]["batch_size"] == 4
    assert json.loads(Path("runs/test/test.json").read_text())["scores"] == result["scores"]
    for path in ("plots/test.png", "plots/test_predictions.png", "best_test.pt", "last_test.pt"):
        assert Path(path).stat().st_size > 1000
    assert list(Path("runs/test").glob("events.out.tfevents.*"))
    assert not list(Path().rglob("*.tmp"))


@pytest.mark.parametrize(
    ("script", "stop"),
    [
        (train, 1),
        pytest.param(train_4_c, 1, marks=pytest.mark.slow),
    ],
)
def test_a_run_stopped_after_any_epoch_and_resumed_equals_an_unbroken_one_bit_for_bit(
    voc_root, script, stop, monkeypatch
):
    def run_train(voc_root, epochs, **settings):  # train_4_c has a schedule, augmentation and class weights as well
        run = Run(**{**FP32, "data_root": voc_root, **settings})
        return script.main("voc2007", image_size=32, epochs=epochs, batch_size=4, run=run)

    whole = run_train(voc_root, 3)
    expected = comparable("last_test.pt"), comparable_weights("best_test.pt")
    with monkeypatch.context() as patch, pytest.raises(stopped_after(stop, patch)):
        run_train(voc_root, 3)
    assert len(checkpoint.load(Path("last_test.pt"))["history"]) == stop
    resumed = run_train(voc_root, 3, resume=True)
    assert same(comparable("last_test.pt"), expected[0])
    assert same(comparable_weights("best_test.pt"), expected[1])
    assert resumed == whole


def comparable_weights(path):
    return checkpoint.load(Path(path))["weights"]


def test_resuming_a_finished_run_only_scores_it_again(voc_root, capsys):
    first = run_train(voc_root, 2)
    capsys.readouterr()
    assert run_train(voc_root, 2, resume=True) == first
    assert "epoch 1/2" not in capsys.readouterr().out


def test_a_run_on_oblong_images_can_be_resumed(voc_root):
    settings = {"dataset": "voc2007", "image_size": (24, 40), "batch_size": 4, "patience": 0}
    for epochs in (1, 2):
        result = train.main(**settings, epochs=epochs, run=Run(**FP32, data_root=voc_root, resume=epochs == 2))
    assert len(checkpoint.load(Path("last_test.pt"))["history"]) == 2
    assert tuple(result["image_size"]) == (24, 40)


def test_resuming_something_else_is_refused(voc_root, few_shapes):
    run_train(voc_root, 1)
    with pytest.raises(UserError, match=r"test had dataset voc2007 -> shapes, epochs 1 -> 2, .*; give the settings"):
        train.main("shapes", image_size=32, epochs=2, run=Run(**FP32, resume=True))
    with pytest.raises(UserError, match=r"nothing to resume: test had epochs 1 -> 2, lr 0\.001 -> 0\.5; give"):
        train.main("voc2007", 32, 2, 4, lr=0.5, run=Run(**FP32, resume=True, data_root=voc_root))
    Path("last_test.pt").write_bytes(Path("last_test.pt").read_bytes()[:1000])
    with pytest.raises(UserError, match=r"last_test\.pt is damaged"):
        run_train(voc_root, 2, resume=True)


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
    assert "--resume goes on from there" in output and "Traceback" not in output
    assert Path("plots/test.png").exists()
    done = len(checkpoint.load(Path("last_test.pt"))["history"])
    result = python("train.py", *flags[:-1], "1", "--resume")
    assert f"after epoch {done}" in result.stdout and result.returncode == 0, result.stderr


def test_early_stopping_counts_epochs_since_the_best():
    history = [{"epoch": i + 1, "val_miou": miou} for i, miou in enumerate([0.1, 0.3, 0.2, 0.3])]
    assert out_of_patience(history, 2) and not out_of_patience(history, 3)
    assert not out_of_patience(history, 0) and not out_of_patience([], 1)


class Fixed(nn.Module):
    """Predicts class 1 in the left half of every image, 0 in the right; one parameter, unused by the prediction."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        logits = torch.zeros(len(images), 21, *images.shape[2:])
        logits[:, 1, :, : images.shape[3] // 2] = 5
        return logits * self.scale


def test_evaluation_is_the_same_for_every_batch_size(voc_root):
    run = Run(**FP32, data_root=voc_root).start(lambda: None, {})
    _, _, test_set = load("voc2007", 32, run)
    results = [evaluate(Fixed(), Loader(test_set, size, run), CrossEntropy(), run) for size in (1, 3, 7)]
    assert all(matrix.scores() == results[0][1].scores() for _, matrix in results)
    assert all(loss == pytest.approx(results[0][0], rel=1e-6) for loss, _ in results)
    valid = test_set.masks != VOID
    left = torch.zeros_like(valid)
    left[..., :16] = True
    right_answers = (test_set.masks == left.int())[valid].float().mean().item()
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


def test_fit_ends_with_the_weights_of_the_best_epoch_not_the_last(voc_root, monkeypatch):
    monkeypatch.setitem(MODELS, "fading", Fading)
    run = Run(**FP32, data_root=voc_root).start(lambda: None, {})
    train_set, val_set, _ = load("voc2007", 32, run)
    model = Fading()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)  # three steps an epoch: 0.15 after the first, -0.15, ...
    fit(model, Loader(train_set, 4, run), Loader(val_set, 4, run), Push(), optimizer, epochs=3, run=run)
    assert model.level.item() == pytest.approx(0.15)
    assert checkpoint.load(Path("best_test.pt"))["epoch"] == 1
    assert checkpoint.load(Path("last_test.pt"))["weights"]["level"].item() == pytest.approx(-0.45)


def test_an_epoch_without_a_validation_score_is_never_the_best():
    nan = float("nan")
    history = [{"epoch": i + 1, "val_miou": miou} for i, miou in enumerate([nan, 0.0, 0.1, nan])]
    assert best_row(history)["epoch"] == 3 and best_row(history[:1])["epoch"] == 1


def test_a_loss_that_is_not_finite_stops_training_and_names_images_and_learning_rate(voc_root):
    run = Run(**FP32, data_root=voc_root)
    with pytest.raises(UserError) as error:
        train.main("voc2007", 32, 1, 4, lr=1e20, run=run)
    loader = Loader(load("voc2007", 32, ready := started(data_root=voc_root))[0], 4, ready, shuffle=True)
    loader.set_epoch(1)
    names = ", ".join(loader.data.names[i] for i in loader.batches()[1].tolist())
    assert str(error.value) == (
        f"the loss is nan in batch 2 of 3 of epoch 1 ({names}), at learning rate 1e+20; try a smaller one, or "
        "clip_norm=1 in fit"
    )
    assert not Path("last_test.pt").exists()


def test_clipped_gradients_are_no_longer_than_asked_for(voc_root, monkeypatch):
    monkeypatch.setitem(MODELS, "fading", Fading)
    levels = []
    for clip_norm in (0.0, 1e-3):  # the gradient is 1
        run = Run(**FP32, data_root=voc_root).start(lambda: None, {})
        train_set, val_set, _ = load("voc2007", 32, run)
        optimizer = torch.optim.SGD((model := Fading()).parameters(), lr=0.1)
        loaders = Loader(train_set, 12, run), Loader(val_set, 4, run)
        fit(model, *loaders, Push(), optimizer, epochs=1, run=run, clip_norm=clip_norm)
        levels.append(model.level.item())
    assert levels == pytest.approx([0.35, 0.45 - 1e-4])


def dice(logits, target):
    """A loss as a user writes it."""
    valid = target != VOID
    truth = nn.functional.one_hot(target * valid, logits.shape[1]).movedim(-1, 1) * valid[:, None]
    share = logits.softmax(1) * valid[:, None]
    return 1 - ((2 * (share * truth).sum((0, 2, 3)) + 1) / ((share + truth).sum((0, 2, 3)) + 1)).mean()


class Both(nn.Module):
    def forward(self, logits, target):
        return nn.functional.cross_entropy(logits, target, ignore_index=VOID) + dice(logits, target)


def test_any_loss_that_is_a_scalar_fits_in(voc_root):
    losses = []
    for criterion in (CrossEntropy(), nn.CrossEntropyLoss(ignore_index=VOID), dice, Both()):
        run = Run(**FP32, data_root=voc_root).start(lambda: None, {})
        train_set, val_set, _ = load("voc2007", 32, run)
        model = train.BasicFCN(21)
        optimizer = torch.optim.AdamW(model.parameters())
        history = fit(
            model, Loader(train_set, 4, run), Loader(val_set, 4, run), criterion, optimizer, epochs=2, run=run
        )
        losses.append([row["train_loss"] for row in history])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert 0 < losses[2][1] < losses[2][0] < 1 and losses[3][1] < losses[3][0] != losses[0][0]


def test_a_batch_that_is_void_everywhere_changes_the_loss_by_nothing(voc_root):
    run = Run(**FP32, data_root=voc_root).start(lambda: None, {})
    train_set, val_set, _ = load("voc2007", 32, run)
    train_set.masks = torch.full_like(train_set.masks, VOID)
    model = train.BasicFCN(21)
    optimizer = torch.optim.AdamW(model.parameters())
    loaders = Loader(train_set, 4, run), Loader(val_set, 4, run)
    history = fit(model, *loaders, CrossEntropy(), optimizer, epochs=1, run=run)
    assert history[0]["train_loss"] == 0 and 0 < history[0]["val_loss"] < 10


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory in this way")
def test_too_little_memory_is_explained(voc_root):
    Path("limited.py").write_text("""
import resource
from pathlib import Path

import common.engine
import train
from common.cli import cli

def limited(*args, whole=common.engine.train_one_epoch):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, -1))
    return whole(*args)

common.engine.train_one_epoch = limited
cli(train.main)
""")
    flags = ["--device", "cpu", "--data-root", voc_root, "--image-size", 600, "--batch-size", 8]
    result = python(Path("limited.py").absolute(), *flags, PYTHONPATH=str(REPOSITORY))
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "the memory does not suffice for batches of 8 images; try --batch-size 4" in result.stderr


def test_a_kill_between_the_checkpoints_of_an_epoch_loses_nothing(voc_root):
    run_train(voc_root, 1)
    expected = comparable_weights("best_test.pt")
    Path("best_test.pt").write_bytes(b"of an earlier run")
    run_train(voc_root, 1, resume=True)
    assert same(comparable_weights("best_test.pt"), expected)


def test_without_the_best_epoch_so_far_a_run_cannot_go_on(voc_root):
    run_train(voc_root, 2)
    contents = checkpoint.load(Path("last_test.pt"))
    contents["history"][0]["val_miou"] = 0.9  # the best is the first, not the last
    checkpoint.save(Path("last_test.pt"), contents)
    Path("best_test.pt").unlink()
    with pytest.raises(UserError, match=r"best_test\.pt is missing"):
        run_train(voc_root, 3, resume=True)


def test_a_batch_of_one_image_that_shrinks_to_a_pixel_is_explained(voc_root):
    with pytest.raises(UserError, match="use a larger --batch-size or --image-size"):
        train.main("voc2007", 32, 1, batch_size=1, run=Run(**FP32, data_root=voc_root))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_batch_loop_never_waits_for_the_gpu(voc_root, monkeypatch):
    run = Run(name="test", device="cuda", data_root=voc_root).start(lambda: None, {})
    train_set, val_set, _ = load("voc2007", 32, run)
    model = train.BasicFCN(21)
    optimizer = torch.optim.AdamW(model.parameters())
    loaders = Loader(train_set, 4, run, shuffle=True), Loader(val_set, 4, run)

    class Strict(Loader):
        """Turns every synchronisation between its first batch and its last into an error."""

        def __iter__(self):
            for batch in super().__iter__():
                torch.cuda.set_sync_debug_mode("error")
                yield batch
            torch.cuda.set_sync_debug_mode("default")

    for loader in loaders:
        loader.__class__ = Strict
    fit(model, *loaders, CrossEntropy(), optimizer, epochs=2, run=run)


@needs_shared
@pytest.mark.slow
def test_the_real_images_are_learnt(capsys):
    run = Run(data_root=SHARED / "data")
    result = train.main("voc2007", image_size=96, epochs=25, patience=0, run=run)
    # Sixty photographs, from random weights: overfitted, and hardly more than the floor on others.
    history = checkpoint.load(Path("last_train-image_size96-epochs25-patience0.pt"))["history"]
    assert history[0]["train_miou"] < 0.1 < 0.2 < history[-1]["train_miou"]
    assert result["scores"]["mIoU"] > result["floor"]["mIoU"]
