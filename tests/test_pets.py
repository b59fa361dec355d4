"""Oxford-IIIT Pet in its official layout, small, and the training in two stages on it."""

import csv
import itertools
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, one_sentence, python, started, write_pets
from PIL import Image

import train
import train_pets
from common import checkpoint
from common.compare import compare_variants
from common.datasets import load
from common.errors import UserError
from common.loader import Loader
from common.models import FCN8s
from common.models.encoders import freeze
from common.run import Run

SMALL = {"encoder": "mobilenet_v1", "pretrained": False, "image_size": 32}


@pytest.fixture
def pets_root(tmp_path) -> Path:
    write_pets(tmp_path / "data", 24, 6)
    return tmp_path / "data"


def test_pets_load_with_classes_from_0_and_the_official_splits(pets_root):
    train_set, val_set, test_set = load("pets", 64, started(data_root=pets_root))
    assert [len(part) for part in (train_set, val_set, test_set)] == [22, 2, 6]
    assert train_set.classes == ("pet", "background", "border")
    assert not set(train_set.names) & set(val_set.names)
    path = pets_root / "oxford-iiit-pet/annotations/trimaps" / f"{test_set.names[0]}.png"
    assert np.array_equal(test_set.masks[0].numpy() + 1, np.asarray(Image.open(path)))


@pytest.mark.parametrize("mode", ["GIF", "PNG RGBA", "PNG L", "stray bytes", "apple"])
def test_odd_files_of_the_official_archive_are_read(pets_root, mode):
    folder = pets_root / "oxford-iiit-pet"
    path = folder / "images/beagle_0.jpg"
    picture, form = Image.open(path).convert("RGB"), mode.split()[0]
    if form in ("GIF", "PNG"):
        picture.convert(mode.split()[-1] if form == "PNG" else "P").save(path, form)
    elif mode == "apple":  # what a Mac leaves in an archive
        (folder / "annotations/trimaps/._beagle_0.png").write_bytes(b"\0\5\26\7")
    else:
        path.write_bytes(path.read_bytes()[:-2] + bytes(240) + b"\xff\xd9")
    test_set = load("pets", 64, started(data_root=pets_root))[2]
    expected = np.asarray(picture.convert("L") if "L" in mode.split() else picture, dtype=float)
    assert abs(test_set.images[0].float().mean() - expected.mean()) < 3


@pytest.mark.parametrize(
    ("value", "message"),
    [(0, "holds the value 0"), (4, "holds the value 4"), (None, "trimaps/beagle_0.png is missing")],
)
def test_a_trimap_that_is_missing_or_holds_another_value_is_named(pets_root, value, message):
    path = pets_root / "oxford-iiit-pet/annotations/trimaps/beagle_0.png"
    trimap = np.array(Image.open(path))
    path.unlink()
    if value is not None:
        trimap[3, 5] = value
        Image.fromarray(trimap).save(path)
    with pytest.raises(UserError, match=message):
        load("pets", 64, started(data_root=pets_root))


def test_a_missing_list_names_the_command_that_fetches_it():
    with pytest.raises(UserError, match=r"trainval\.txt is missing; get the data with `python download.py pets`"):
        load("pets", 32, started())


def test_first_the_decoder_learns_then_everything(pets_root, monkeypatch):
    settings = SMALL | {"epochs": 2, "fine_tune_epochs": 2, "batch_size": 8}
    torch.manual_seed(0)
    initial = FCN8s("mobilenet_v1", 3, pretrained=False).encoder.state_dict()
    seen = []

    def remember(encoder, frozen):
        seen.append({key: value.clone() for key, value in encoder.state_dict().items()})
        freeze(encoder, frozen)

    monkeypatch.setattr(train_pets, "freeze", remember)
    train_pets.main(model="fcn8s", **settings, run=Run(device="cpu", name="t", data_root=pets_root))
    last = checkpoint.load(Path("last_t.pt"))
    assert seen[0].keys() == initial.keys() and all(torch.equal(seen[0][key], initial[key]) for key in initial)
    assert not torch.equal(last["weights"]["encoder.network.pw5.weight"], initial["network.pw5.weight"])
    assert [(row["stage"], row["epoch"]) for row in last["history"]] == [(1, 1), (1, 2), (2, 3), (2, 4)]
    assert [group["lr"] for group in last["optimizer"]["param_groups"]] == [1e-4, 3e-4]


@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 3])  # after the first stage; in the second
def test_both_stages_resume_bit_for_bit(pets_root, stop, monkeypatch):
    settings = SMALL | {"model": "fcn8s", "epochs": 2, "fine_tune_epochs": 2, "batch_size": 8}

    def run(name, **more):
        run = Run(device="cpu", precision="fp32", name=name, data_root=pets_root, **more)
        return train_pets.main(**settings, run=run)

    whole = run("whole")
    with monkeypatch.context() as patch:
        original = Loader.set_epoch
        patch.setattr(Loader, "set_epoch", lambda self, n: original(self, n) if n <= stop else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run("broken")
    assert run("broken", resume=True) == whole
    a, b = (checkpoint.load(Path(f"last_{name}.pt")) for name in ("whole", "broken"))
    assert all(torch.equal(value, b["weights"][key]) for key, value in a["weights"].items())
    assert [row["val_loss"] for row in a["history"]] == [row["val_loss"] for row in b["history"]]


def test_a_stage_ends_when_validation_stays_as_it_is_and_the_rate_falls_before(pets_root):
    settings = SMALL | {"epochs": 30, "fine_tune_epochs": 1, "batch_size": 22, "lr": 0.0, "patience": 4}
    train_pets.main(model="fcn8s", **settings, run=Run(device="cpu", name="t", data_root=pets_root))
    rows = checkpoint.load(Path("last_t.pt"))["history"]
    assert [row["stage"] for row in rows][-2:] == [1, 2] and len(rows) < 12


@pytest.mark.parametrize("plateau", [0, 1, 2, 3])
def test_rates_are_divided_by_3_after_as_many_epochs_without_a_better_score_as_plateau_says(plateau):
    optimizer = torch.optim.AdamW([torch.zeros(1)], lr=1.0)
    scheduler, rates = train_pets.reduce_on_plateau(optimizer, plateau), []
    for miou in (
        0.3,
        0.30001,
        0.2,
        0.1,
        0.3,
        0.25,
        0.30001,
        0.2,
    ):  # the second is the best, the others are worse or equal
        if scheduler:
            scheduler.step(miou)
        rates.append(optimizer.param_groups[0]["lr"])
    divided = [i for i, (before, after) in enumerate(zip([1.0, *rates], rates)) if after < before]  # noqa: B905
    assert divided == {0: [], 1: [2, 3, 4, 5, 6, 7], 2: [3, 5, 7], 3: [4, 7]}[plateau]
    assert rates[-1] == pytest.approx(3.0 ** -len(divided))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "segnets"], "invalid choice: 'segnets'"),
        (["--encoder", "alexnet"], "invalid choice: 'alexnet'"),
        (["--stored-scale", "0"], "--stored-scale: the size 0x0 is not possible"),
        pytest.param(["--model", "pspnet", "--batch-size", "1"], "a batch has one image", marks=pytest.mark.slow),
        pytest.param(["--model", "deeplabv3", "--batch-size", "1"], "a batch has one image", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(pets_root, arguments, message):
    tiny = ["--encoder=mobilenet_v1", "--no-pretrained", "--image-size=32", "--data-root", pets_root]
    assert message in one_sentence(python("train_pets.py", *tiny, *arguments))


@pytest.mark.slow
def test_a_comparison_runs_what_is_missing_and_goes_on_where_it_was(pets_root, monkeypatch, capsys):
    parameters = {"dataset": "pets", "image_size": 32, "epochs": 3, "batch_size": 8}
    variants = {"slow": {"lr": 1e-4}, "fast": {"lr": 1e-2}}

    def compare(name):
        run = Run(device="cpu", precision="fp32", name=name, data_root=pets_root)
        return compare_variants(train.main, variants, parameters, run)

    whole = compare("whole")
    numbers = itertools.count()
    with monkeypatch.context() as patch:
        original = Loader.set_epoch  # its fifth call is the second variant's second epoch
        patch.setattr(Loader, "set_epoch", lambda self, *n: original(self, *n) if next(numbers) < 4 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            compare("broken")
    first = Path("runs/broken-slow/test.json").stat().st_mtime_ns
    capsys.readouterr()
    assert json.dumps(compare("broken")) == json.dumps(whole)
    text = capsys.readouterr().out
    assert Path("runs/broken-slow/test.json").stat().st_mtime_ns == first
    assert "resuming last_broken-fast.pt after epoch 1" in text
    with Path("runs/broken/table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == ["slow", "fast"]
    assert [float(row["mIoU"]) for row in rows] == [round(r["scores"]["mIoU"], 3) for r in whole.values()]
    assert "| slow |" in text and Path("plots/broken.png").stat().st_size > 10_000


def test_a_variant_that_fails_is_named_at_the_end_and_left_out(pets_root, capsys):
    parameters = {"dataset": "pets", "image_size": 32, "epochs": 1}
    run = Run(device="cpu", name="c", data_root=pets_root)
    with pytest.raises(UserError, match=r"1 of 2 variants failed, for reasons above: bad"):
        compare_variants(train.main, {"bad": {"batch_size": 0}, "good": {"batch_size": 8}}, parameters, run)
    assert "good" in Path("runs/c/table.csv").read_text() and "bad" not in Path("runs/c/table.csv").read_text()
    assert "bad failed: --batch-size 0 must be at least 1" in capsys.readouterr().out


def test_a_comparison_takes_nothing_that_is_not_its_own(pets_root, capsys):
    parameters = {"dataset": "pets", "image_size": 32, "epochs": 1, "lr": 1e-3, "batch_size": 8}
    run = Run(device="cpu", name="c", data_root=pets_root)
    compare_variants(train.main, {"one": {"batch_size": 8}}, parameters, run)
    for other_parameters, settings, trained in ((parameters, run, False), (parameters | {"lr": 1e-2}, run, True),
                                                (parameters | {"lr": 1e-2}, replace(run, seed=1), True)):  # fmt: skip
        capsys.readouterr()
        compare_variants(train.main, {"one": {"batch_size": 8}}, other_parameters, settings)
        assert ("best validation mIoU" in capsys.readouterr().out) == trained
    Path("runs/c-one/history.csv").unlink()  # is made again from last_c-one.pt
    compare_variants(train.main, {"one": {"batch_size": 8}}, other_parameters, settings)
    assert "resuming" in capsys.readouterr().out and Path("runs/c-one/history.csv").exists()


def test_the_second_stage_can_be_left_out_and_added_later(pets_root, capsys):
    settings = SMALL | {"model": "fcn8s", "epochs": 2, "batch_size": 8}
    run = Run(device="cpu", precision="fp32", name="t", data_root=pets_root)
    train_pets.main(**settings, fine_tune_epochs=0, run=run)
    frozen = checkpoint.load(Path("last_t.pt"))
    assert len(frozen["history"]) == 2
    train_pets.main(**settings, fine_tune_epochs=1, run=replace(run, resume=True))
    assert [row["stage"] for row in checkpoint.load(Path("last_t.pt"))["history"]] == [1, 1, 2]
    capsys.readouterr()
    train_pets.main(**settings, fine_tune_epochs=0, run=replace(run, resume=True))
    assert "stage 1 is finished" in capsys.readouterr().out


def test_the_floor_is_of_the_most_frequent_class_and_named(pets_root, capsys):
    result = train.main("pets", image_size=32, epochs=1, run=Run(device="cpu", data_root=pets_root))
    masks = load("pets", 32, started(data_root=pets_root))[2].masks
    assert result["floor"]["pixel accuracy"] == pytest.approx((masks == 1).float().mean().item())
    assert "all background" in capsys.readouterr().out


def test_a_checkpoint_knows_the_size_that_the_network_was_validated_at(pets_root):
    settings = SMALL | {"model": "fcn8s", "image_size": (40, 56), "epochs": 1, "fine_tune_epochs": 0}
    train_pets.main(**settings, run=Run(device="cpu", name="t", data_root=pets_root))
    assert checkpoint.load(Path("best_t.pt"))["image_size"] == [40, 56]


@pytest.mark.slow
def test_every_pair_trains_and_a_killed_comparison_goes_on(few_shapes, tmp_path):
    write_pets(tmp_path / "data", 24, 6)
    flags = [
        "--compare",
        "--no-pretrained",
        "--image-size=32",
        "--stored-scale=1",
        "--epochs=1",
        "--fine-tune-epochs=1",
    ]
    command = [sys.executable, REPOSITORY / "train_pets.py", *flags, "--data-root", tmp_path / "data"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(list(Path("runs").glob("*/test.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in Path("runs").glob("*/test.json")}
    assert len(done) >= 3
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert len(list(Path("runs").glob("*/test.json"))) == 10
    assert all(path.stat().st_mtime_ns == time_ for path, time_ in done.items())
