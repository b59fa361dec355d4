import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_ade20k

import train_ade20k
from common import checkpoint
from common.cli import cli
from common.errors import UserError
from common.loader import Loader
from common.models import DilatedFCN
from common.run import Run

TINY = {"image_size": 32, "epochs": 1, "steps": 2, "val_steps": 1, "pretrained": False}
RATES = {name: rate for name, (_, rate) in train_ade20k.OPTIMIZERS.items()}


def train(root: Path = Path("nowhere"), name: str = "test", **settings) -> dict:
    return train_ade20k.main(**TINY | settings, run=Run(device="cpu", data_root=root, name=name))


@pytest.fixture
def light(monkeypatch) -> None:
    """Let the script build a small network, where a test is not about its own large ones."""
    monkeypatch.setattr(train_ade20k, "build", lambda model, num_classes, **options: DilatedFCN(num_classes))


@pytest.mark.parametrize(("count_other", "classes"), [(False, 150), (True, 151)])
def test_other_is_scored_only_if_it_is_counted(tmp_path, light, count_other, classes):
    write_ade20k(tmp_path / "data", {"training": 30, "validation": 4})
    result = train(tmp_path / "data", count_other=count_other)
    assert len(result["iou"]) == classes and ("other" in result["iou"]) == count_other
    assert result["images"] == 4 and not np.isnan(result["scores"]["mIoU"])
    assert checkpoint.load(Path("best_test.pt"))["arguments"] == {"num_classes": classes}


def test_the_u_net_trains_too(few_shapes):
    assert 0 <= train(dataset="shapes", model="ade_unet", optimizer="rmsprop", image_size=16)["scores"]["mIoU"] <= 1
    contents = checkpoint.load(Path("best_test.pt"))
    assert contents["model"] == "ade_unet" and contents["scores"]["lr"] == RATES["rmsprop"]


def test_the_learning_rate_is_the_optimizers_own_unless_one_is_given(few_shapes, light):
    train(dataset="shapes", name="own")
    train(dataset="shapes", lr=0.5e-5, name="given")
    assert checkpoint.load(Path("last_own.pt"))["scores"]["lr"] == RATES["adam"]
    assert checkpoint.load(Path("last_given.pt"))["scores"]["lr"] == 0.5e-5


def test_counting_other_where_there_is_none_is_refused(few_shapes):
    with pytest.raises(SystemExit, match="--count-other is about ADE20K's label 0, which shapes does not have"):
        cli(train_ade20k.main, ["--dataset", "shapes", "--count-other"])


@pytest.mark.slow
def test_a_stopped_comparison_goes_on_and_all_its_runs_start_alike(few_shapes, light, monkeypatch):
    batches, weights = [], []

    class Watched(Loader):
        def __iter__(self):
            for images, masks in super().__iter__():
                if self.shuffle:
                    batches.append(images.sum().item())
                yield images, masks

    def watched_fit(model, *args, **options):
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        if len(weights) == 2:
            raise KeyboardInterrupt
        fit(model, *args, **options)

    fit = train_ade20k.fit
    monkeypatch.setattr(train_ade20k, "Loader", Watched)
    monkeypatch.setattr(train_ade20k, "fit", watched_fit)
    settings = {**TINY, "dataset": "shapes", "compare_optimizers": True}
    run = Run(device="cpu", name="all", tensorboard=True)
    with pytest.raises(KeyboardInterrupt):
        train_ade20k.main(**settings, run=run)
    first = Path("last_all-rmsprop.pt").stat().st_mtime_ns
    results = train_ade20k.main(**settings, run=run)

    assert Path("last_all-rmsprop.pt").stat().st_mtime_ns == first  # not trained again
    assert list(results) == ["rmsprop", "adamw", "adam"]
    assert len(weights) == 4 and all(torch.equal(one, weights[0]) for one in weights)
    assert len(batches) == 6 and batches[:2] == batches[2:4] == batches[4:]
    for name in results:
        assert list(Path(f"runs/all-{name}").glob("events.out.tfevents.*"))
        with Path(f"runs/all-{name}/history.csv").open() as file:
            assert [float(row["lr"]) for row in csv.DictReader(file)] == [RATES[name]]
    with Path("runs/all/table.csv").open() as file:
        assert [row["variant"] for row in csv.DictReader(file)] == list(results)
    assert Path("plots/all.png").stat().st_size > 5000


@pytest.mark.slow
def test_a_comparison_takes_no_run_of_other_settings_or_data_and_none_that_is_damaged(few_shapes, light, monkeypatch):
    def compare(**settings) -> int:
        trained = []
        with monkeypatch.context() as patch:
            original = train_ade20k.fit
            patch.setattr(train_ade20k, "fit", lambda *args, **options: trained.append(1) or original(*args, **options))
            run = Run(device="cpu", **settings)
            train_ade20k.main(dataset="shapes", **TINY, compare_optimizers=True, run=run)
        return len(trained)

    assert compare() == 3 and compare() == 0
    assert compare(seed=1) == 3
    adam = Path("runs/train_ade20k-shapes-image_size32-epochs1-steps2-val_steps1-no_pretrained-s1")
    (adam / "test.json").write_text("junk")
    assert compare(seed=1) == 1
    splits = (adam / "splits.json").read_text()
    assert "train_000" in splits
    (adam / "splits.json").write_text(splits.replace("train_000", "other", 1))
    with pytest.raises(UserError, match=r"the data has changed between the variants; delete runs/.* and start again"):
        compare(seed=1)
    with pytest.raises(UserError, match="--dry-run shows a single training"):
        compare(dry_run=True)
