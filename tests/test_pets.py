"""Oxford-IIIT Pet in its official layout, small, and the training in two stages on it."""

import csv
import inspect
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import started, write_pets
from PIL import Image

import train
import train_pets
from common import checkpoint
from common.datasets import load
from common.loader import Loader
from common.models import FCN8s
from common.models.encoders import freeze
from common.reporting import plotting
from common.reporting.comparison import compare_variants
from common.run import Run
from common.system.errors import UserError

pytestmark = pytest.mark.usefixtures("without_pictures")

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


@pytest.mark.parametrize("kind", ["GIF", "PNG", "apple"])  # behind the suffix .jpg; what a Mac leaves
def test_odd_files_of_the_official_archive_are_read(pets_root, kind):
    folder = pets_root / "oxford-iiit-pet"
    path = folder / "images/beagle_0.jpg"
    picture = Image.open(path).convert("RGB")
    if kind == "apple":
        (folder / "annotations/trimaps/._beagle_0.png").write_bytes(b"\0\5\26\7")
    else:
        picture.convert("P" if kind == "GIF" else "RGBA").save(path, kind)
    test_set = load("pets", 64, started(data_root=pets_root))[2]
    assert abs(test_set.images[0].float().mean() - np.asarray(picture, dtype=float).mean()) < 3


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


def test_first_the_decoder_learns_then_everything_and_the_second_stage_may_come_later(pets_root, monkeypatch, capsys):
    settings = SMALL | {"model": "fcn8s", "image_size": (32, 40), "epochs": 2, "batch_size": 12}
    torch.manual_seed(0)
    initial = FCN8s("mobilenet_v1", 3, pretrained=False).encoder.state_dict()
    run, seen = Run(device="cpu", precision="fp32", name="t", data_root=pets_root), []

    def remember(encoder, frozen):
        seen.append({key: value.clone() for key, value in encoder.state_dict().items()})
        freeze(encoder, frozen)

    monkeypatch.setattr(train_pets, "freeze", remember)
    train_pets.main(**settings, fine_tune_epochs=0, run=run)
    assert "fine-tuning" not in capsys.readouterr().out and not Path("runs/t/test_frozen.json").exists()
    assert len(checkpoint.load(Path("last_t.pt"))["history"]) == 3  # with the untrained
    train_pets.main(**settings, fine_tune_epochs=1, run=replace(run, resume=True))
    assert "from now on the encoder is trained, too\nepoch 3/3" in capsys.readouterr().out
    assert seen[0].keys() == initial.keys() and all(torch.equal(seen[0][key], initial[key]) for key in initial)
    last = checkpoint.load(Path("last_t.pt"))
    assert not torch.equal(last["weights"]["encoder.network.pw5.weight"], initial["network.pw5.weight"])
    assert [(row["stage"], row["epoch"]) for row in last["history"]] == [(1, 0), (1, 1), (1, 2), (2, 3)]
    assert [group["lr"] for group in last["optimizer"]["param_groups"]] == [1e-4, 3e-4]
    with Path("runs/t/history.csv").open() as file:
        rates = [[row[key] for key in ("lr_encoder", "lr_decoder")] for row in csv.DictReader(file)]
    assert rates == [*[["nan", "0.001"]] * 3, ["0.0001", "0.0003"]]
    assert checkpoint.load(Path("best_t.pt"))["image_size"] == [32, 40]  # that of validation, not of the crops' source
    capsys.readouterr()
    train_pets.main(**settings, fine_tune_epochs=0, run=replace(run, resume=True))
    assert "stage 1 is finished" in capsys.readouterr().out


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
    frozen = Path("runs/broken/test_frozen.json")
    assert json.loads(frozen.read_text()) == json.loads(Path("runs/whole/test_frozen.json").read_text()) | {
        "run": "broken"
    }
    written = frozen.stat().st_mtime_ns
    assert run("broken", resume=True) == whole | {"run": "broken"}
    a, b = (checkpoint.load(Path(f"last_{name}.pt")) for name in ("whole", "broken"))
    assert all(torch.equal(value, b["weights"][key]) for key, value in a["weights"].items())
    assert [row["val_loss"] for row in a["history"]] == [row["val_loss"] for row in b["history"]]
    assert frozen.stat().st_mtime_ns == written  # scored once: best_broken.pt may be of the second stage by now


def test_a_stage_ends_when_validation_stays_as_it_is_and_the_rate_falls_before(pets_root):
    settings = SMALL | {"epochs": 30, "fine_tune_epochs": 1, "batch_size": 22, "lr": 0.0, "patience": 4}
    train_pets.main(model="fcn8s", **settings, run=Run(device="cpu", name="t", data_root=pets_root))
    rows = checkpoint.load(Path("last_t.pt"))["history"]
    assert [row["stage"] for row in rows][-2:] == [1, 2] and len(rows) < 12


@pytest.mark.parametrize("plateau", [0, 1, 2, 3])
def test_rates_are_divided_by_3_after_as_many_epochs_without_a_better_score_as_plateau_says(
    pets_root, plateau, monkeypatch
):
    class CaughtError(Exception):
        pass

    def fit(*args, **options):
        raise CaughtError(*args)

    monkeypatch.setattr(train_pets, "fit", fit)
    with pytest.raises(CaughtError) as caught:
        train_pets.main(**SMALL, model="fcn8s", lr=1.0, plateau=plateau, run=Run(device="cpu", data_root=pets_root))
    (*_, optimizer, scheduler), rates = caught.value.args, []
    for miou in (0.3, 0.30001, 0.2, 0.1, 0.3, 0.25, 0.30001, 0.2):  # the second is the best
        scheduler.step(miou)
        rates.append(optimizer.param_groups[0]["lr"])
    divided = [i for i, (before, after) in enumerate(zip([1.0, *rates], rates)) if after < before]  # noqa: B905
    assert divided == {0: [], 1: [2, 3, 4, 5, 6, 7], 2: [3, 5, 7], 3: [4, 7]}[plateau]
    assert rates[-1] == pytest.approx(3.0 ** -len(divided))


@pytest.mark.parametrize("model", ["pspnet", "deeplabv3", "deeplabv3plus"])
def test_a_batch_of_one_image_is_refused_where_it_cannot_be_normalised(pets_root, model):
    with pytest.raises(UserError, match="a batch has one image"):
        train_pets.main(**SMALL, model=model, batch_size=1, run=Run(device="cpu", data_root=pets_root))


@pytest.mark.slow
def test_a_comparison_runs_what_is_missing_and_goes_on_where_it_was(pets_root, small_network, monkeypatch, capsys):
    parameters = {name: p.default for name, p in inspect.signature(train.main).parameters.items() if name != "run"}
    parameters |= {"dataset": "pets", "image_size": 32, "epochs": 3, "batch_size": 8}
    variants = {"slow": {"lr": 1e-4}, "fast": {"lr": 1e-2}}

    def compare(name):
        run = Run(device="cpu", precision="fp32", name=name, data_root=pets_root)
        return json.dumps(compare_variants(train.main, variants, parameters, run)).replace(name, "it")

    whole = compare("whole")
    numbers = itertools.count()
    with monkeypatch.context() as patch:
        original = Loader.set_epoch  # its fifth call is the second variant's second epoch
        patch.setattr(Loader, "set_epoch", lambda self, *n: original(self, *n) if next(numbers) < 4 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            compare("broken")
    first = Path("runs/broken-slow/test.json").stat().st_mtime_ns
    capsys.readouterr()
    assert compare("broken") == whole
    text = capsys.readouterr().out
    assert Path("runs/broken-slow/test.json").stat().st_mtime_ns == first
    assert "resuming last_broken-fast.pt after epoch 1" in text
    with Path("runs/broken/table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == ["slow", "fast"]
    assert [float(row["mIoU"]) for row in rows] == [round(r["scores"]["mIoU"], 3) for r in json.loads(whole).values()]
    assert "| slow |" in text and Path("plots/broken.png").stat().st_size > 10_000


def test_a_variant_that_fails_is_named_at_the_end_and_left_out(pets_root, small_network, capsys):
    parameters = {"dataset": "pets", "image_size": 32, "epochs": 1}
    run = Run(device="cpu", name="c", data_root=pets_root)
    with pytest.raises(UserError, match=r"1 of 2 variants failed, for reasons above: bad"):
        compare_variants(train.main, {"bad": {"batch_size": 0}, "good": {"batch_size": 24}}, parameters, run)
    assert "good" in Path("runs/c/table.csv").read_text() and "bad" not in Path("runs/c/table.csv").read_text()
    assert "bad failed: --batch-size 0 must be at least 1" in capsys.readouterr().out


def test_a_comparison_takes_nothing_that_is_not_its_own(pets_root, small_network, capsys):
    parameters = {name: p.default for name, p in inspect.signature(train.main).parameters.items() if name != "run"}
    parameters |= {"dataset": "pets", "image_size": 32, "epochs": 1}
    run = Run(device="cpu", name="c", data_root=pets_root)
    for changes, settings, trained in (({}, run, True), ({}, run, False), ({"lr": 1e-2}, run, True),
                                       ({"lr": 1e-2}, replace(run, seed=1), True)):  # fmt: skip
        capsys.readouterr()
        compare_variants(train.main, {"one": {}}, parameters | changes, settings)
        assert ("best validation mIoU" in capsys.readouterr().out) == trained


def test_a_comparison_scores_before_and_after_fine_tuning_and_draws_the_speeds_that_it_prints(pets_root, monkeypatch):
    variants = {name: {"model": "fcn8s", "fine_tune_lr": lr} for name, lr in (("a", 3e-3), ("b", 1e-2))}
    monkeypatch.setattr(train_pets, "PAIRS", variants)
    figures = []
    monkeypatch.setattr(plotting, "save", lambda figure, path: figures.append(figure))
    settings = SMALL | {"lr": 0.0, "epochs": 1, "fine_tune_epochs": 2, "batch_size": 11, "compare": True}
    run = Run(device="cpu", name="c", precision="fp32", seed=3, data_root=pets_root)
    results = train_pets.main(**settings, run=run)
    with Path("runs/c/table.csv").open() as file:
        rows = list(csv.DictReader(file))
    *curves, dots = figures[-1].axes
    for number, (row, (variant, result)) in enumerate(zip(rows, results.items(), strict=True)):
        frozen = json.loads(Path(f"runs/c-{variant}/test_frozen.json").read_text())
        for column, of in (
            ("test loss", lambda test: test["loss"]),
            ("mIoU", lambda test: test["scores"]["mIoU"]),
            ("pixel accuracy", lambda test: test["scores"]["pixel accuracy"]),
        ):
            before, after = of(frozen), of(result)
            expected = [f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}"]
            assert [row[f"{column} {part}"] for part in ("frozen", "fine-tuned", "change")] == expected
        with Path(f"runs/c-{variant}/history.csv").open() as file:
            _, _, *second = [float(epoch["train_images_per_second"]) for epoch in csv.DictReader(file)]
        assert row["images/s"] == f"{np.median(second):.1f}"
        arrow, dot = dots.get_lines()[2 * number : 2 * number + 2]
        assert f"{dot.get_xdata()[0]:.1f}" == row["images/s"] and dot.get_ydata()[0] == result["scores"]["mIoU"]
        assert arrow.get_ydata()[0] == frozen["scores"]["mIoU"]
        for axes in curves:
            validation = axes.get_lines()[2 * number + 1]
            assert validation.get_markevery() == [2] and validation.get_marker() == "D"  # the second epoch
    assert rows[0]["test loss frozen"] != rows[0]["test loss fine-tuned"]


@pytest.mark.slow
def test_every_pair_trains(pets_root):
    settings = {"pretrained": False, "image_size": 32, "stored_scale": 1, "epochs": 1, "fine_tune_epochs": 1}
    results = train_pets.main(**settings, compare=True, run=Run(device="cpu", data_root=pets_root))
    assert results.keys() == train_pets.PAIRS.keys() and len(results) == 12
