import csv
from pathlib import Path

import numpy as np
import pytest
from conftest import write_ade20k

import train_ade20k
from common import checkpoint
from common.cli import cli
from common.models import DilatedFCN
from common.run import Run
from common.system.errors import UserError

TINY = {"image_size": 32, "epochs": 1, "steps": 2, "val_steps": 1, "pretrained": False}
RATES = {name: rate for name, (_, rate) in train_ade20k.OPTIMIZERS.items()}


def train(root: Path = Path("nowhere"), name: str = "test", **settings) -> dict:
    return train_ade20k.main(**TINY | settings, run=Run(device="cpu", data_root=root, name=name))


@pytest.fixture
def light(monkeypatch, without_pictures) -> None:
    """Let the script build a small network, where a test is not about its own large ones."""
    monkeypatch.setattr(train_ade20k, "build", lambda model, num_classes, **options: DilatedFCN(num_classes))


@pytest.mark.parametrize(
    ("count_other", "classes", "lr", "expected"), [(False, 150, 0.0, RATES["adam"]), (True, 151, 0.5e-5, 0.5e-5)]
)
def test_other_is_scored_only_if_it_is_counted_and_a_rate_may_be_given(
    tmp_path, light, count_other, classes, lr, expected
):
    write_ade20k(tmp_path / "data", {"training": 12, "validation": 3})
    result = train(tmp_path / "data", count_other=count_other, lr=lr)
    assert len(result["iou"]) == classes and ("other" in result["iou"]) == count_other
    assert result["images"] == 3 and not np.isnan(result["scores"]["mIoU"])
    contents = checkpoint.load(Path("best_test.pt"))
    assert contents["arguments"] == {"num_classes": classes} and contents["scores"]["lr"] == expected


@pytest.mark.slow
def test_the_u_net_trains_too(few_shapes):
    assert 0 <= train(dataset="shapes", model="ade_unet", optimizer="rmsprop", image_size=16)["scores"]["mIoU"] <= 1
    contents = checkpoint.load(Path("best_test.pt"))
    assert contents["model"] == "ade_unet" and contents["scores"]["lr"] == RATES["rmsprop"]


def test_counting_other_where_there_is_none_is_refused(few_shapes):
    with pytest.raises(SystemExit, match="--count-other is about ADE20K's label 0, which shapes does not have"):
        cli(train_ade20k.main, ["--dataset", "shapes", "--count-other"])


@pytest.mark.slow
def test_a_comparison_trains_with_each_optimizer_at_its_own_rate(few_shapes, light):
    settings = {**TINY, "dataset": "shapes", "compare_optimizers": True}
    with pytest.raises(UserError, match="--dry-run shows a single training"):
        train_ade20k.main(**settings, run=Run(device="cpu", dry_run=True))
    results = train_ade20k.main(**settings, run=Run(device="cpu", name="all"))
    assert list(results) == ["rmsprop", "adamw", "adam"]
    for name in results:
        with Path(f"runs/all-{name}/history.csv").open() as file:
            assert [float(row["lr"]) for row in csv.DictReader(file)] == [RATES[name]]
    assert len(Path("runs/all/table.csv").read_text().splitlines()) == 4 and Path("plots/all.png").exists()
