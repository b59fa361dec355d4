"""Oxford-IIIT Pet in its official layout, small, and the training in two parts on it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import started, write_pets
from PIL import Image
from test_engine import comparable, same

import train_pets
from common import checkpoint
from common.datasets import load
from common.history import best_row, read_history
from common.loader import Loader
from common.models import FCN8s
from common.models.encoders import freeze
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


def test_first_the_decoder_learns_then_everything_in_a_run_that_may_follow_later(pets_root, monkeypatch, capsys):
    settings = SMALL | {"model": "fcn8s", "image_size": (32, 40), "epochs": 2, "batch_size": 12}
    torch.manual_seed(0)
    initial = FCN8s("mobilenet_v1", 3, pretrained=False).encoder.state_dict()
    run, seen = Run(device="cpu", precision="fp32", name="t", data_root=pets_root), []

    def remember(encoder, frozen):
        seen.append({key: value.clone() for key, value in encoder.state_dict().items()})
        freeze(encoder, frozen)

    monkeypatch.setattr(train_pets, "freeze", remember)
    frozen = train_pets.main(**settings, fine_tune_epochs=0, run=run)
    assert [path.name for path in Path("runs").iterdir()] == ["t"]
    result = train_pets.main(**settings, fine_tune_epochs=1, run=replace(run, resume=True))
    for name, test in (("t", frozen), ("t-fine_tuned", result)):
        assert json.loads(Path(f"runs/{name}/test.json").read_text()) == test | {"run": name, "image_size": [32, 40]}
    assert seen[0].keys() == initial.keys() and all(torch.equal(seen[0][key], initial[key]) for key in initial)
    last = checkpoint.load(Path("runs/t-fine_tuned/last.pt"))
    assert not torch.equal(last["weights"]["encoder.network.pw5.weight"], initial["network.pw5.weight"])
    assert [group["lr"] for group in last["optimizer"]["param_groups"]] == [1e-4, 3e-4]
    first, second = (read_history(Path("runs", name)) for name in ("t", "t-fine_tuned"))
    assert [row["lr_decoder"] for row in first] == [1e-3] * 3 and "lr_encoder" not in first[0]  # with the untrained
    assert [(row["lr_encoder"], row["lr_decoder"]) for row in second] == [(1e-4, 3e-4)] * 2
    assert second[0]["val_loss"] == best_row(first)["val_loss"]
    assert checkpoint.load(Path("best_t.pt"))["image_size"] == [32, 40]  # that of validation, not of the crops' source
    for epochs, resumed in ((2, True), (3, False)):  # a run that has been trained further is followed anew
        capsys.readouterr()
        train_pets.main(**settings | {"epochs": epochs}, fine_tune_epochs=1, run=replace(run, resume=True))
        assert ("resuming runs/t-fine_tuned/last.pt" in capsys.readouterr().out) == resumed


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 2, 3])  # in the first part, between the two, in the second
def test_both_parts_resume_bit_for_bit(pets_root, stop, monkeypatch):
    settings = SMALL | {"model": "fcn8s", "epochs": 2, "fine_tune_epochs": 2, "batch_size": 8}

    def run(name, **more):
        run = Run(device="cpu", precision="fp32", name=name, data_root=pets_root, **more)
        return train_pets.main(**settings, run=run)

    whole, epochs, set_epoch = run("whole"), iter(range(stop)), Loader.set_epoch
    with monkeypatch.context() as patch, pytest.raises(StopIteration):
        patch.setattr(Loader, "set_epoch", lambda self, number: [next(epochs), set_epoch(self, number)])
        run("broken")
    assert Path("runs/broken-fine_tuned/last.pt").exists() == (stop == 3)
    assert run("broken", resume=True) == whole | {"run": "broken-fine_tuned"}
    for part in ("", "-fine_tuned"):
        assert same(*(comparable(f"runs/{name}{part}/last.pt") for name in ("whole", "broken")))
        tests = [json.loads(Path(f"runs/{name}{part}/test.json").read_text()) for name in ("whole", "broken")]
        assert tests[0] | {"run": ""} == tests[1] | {"run": ""}


def test_a_part_ends_when_validation_stays_as_it_is(pets_root):
    settings = SMALL | {"epochs": 30, "fine_tune_epochs": 1, "batch_size": 22, "lr": 0.0, "patience": 4}
    train_pets.main(model="fcn8s", **settings, run=Run(device="cpu", name="t", data_root=pets_root))
    assert len(read_history(Path("runs/t"))) < 12 and len(read_history(Path("runs/t-fine_tuned"))) == 2


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
@pytest.mark.parametrize("encoder", ["mobilenet_v1", "mobilenet_v2"])
@pytest.mark.parametrize("model", train_pets.DECODERS)
def test_every_pair_trains(pets_root, model, encoder):
    settings = SMALL | {"stored_scale": 1, "epochs": 1, "fine_tune_epochs": 1, "model": model, "encoder": encoder}
    assert train_pets.main(**settings, run=Run(device="cpu", data_root=pets_root))["images"] == 6
