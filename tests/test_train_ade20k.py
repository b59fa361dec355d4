from pathlib import Path

import numpy as np
import pytest
from conftest import write_ade20k

import train_ade20k
from common import checkpoint
from common.cli import cli
from common.models import DilatedFCN
from common.run import Run

TINY = {"image_size": 32, "epochs": 1, "steps": 2, "val_steps": 1, "pretrained": False}


def train(root: Path = Path("nowhere"), name: str = "test", **settings) -> dict:
    return train_ade20k.main(**TINY | settings, run=Run(device="cpu", data_root=root, name=name))


@pytest.fixture
def light(monkeypatch, without_pictures) -> None:
    """Let the script build a small network, where a test is not about its own large ones."""
    monkeypatch.setattr(train_ade20k, "build", lambda model, num_classes, **options: DilatedFCN(num_classes))


@pytest.mark.parametrize(("count_other", "classes"), [(False, 150), (True, 151)])
def test_other_is_scored_only_if_it_is_counted(tmp_path, light, count_other, classes):
    write_ade20k(tmp_path / "data", {"training": 12, "validation": 3})
    result = train(tmp_path / "data", count_other=count_other)
    assert len(result["iou"]) == classes and ("other" in result["iou"]) == count_other
    assert result["images"] == 3 and not np.isnan(result["scores"]["mIoU"])
    assert checkpoint.load(Path("best_test.pt"))["arguments"] == {"num_classes": classes}


@pytest.mark.slow
def test_the_u_net_trains_too(few_shapes):
    assert 0 <= train(dataset="shapes", model="ade_unet", optimizer="rmsprop", image_size=16)["scores"]["mIoU"] <= 1
    assert checkpoint.load(Path("best_test.pt"))["model"] == "ade_unet"


def test_counting_other_where_there_is_none_is_refused(few_shapes):
    with pytest.raises(SystemExit, match="--count-other is only for ade20k, not for shapes"):
        cli(train_ade20k.main, ["--dataset", "shapes", "--count-other"])


def test_rmsprop_has_keras_constants(few_shapes, light):
    train(dataset="shapes", optimizer="rmsprop", lr=1e-3)
    (group,) = checkpoint.load(Path("runs/test/last.pt"))["optimizer"]["param_groups"]
    assert (group["alpha"], group["eps"], group["lr"]) == (0.9, 1e-7, 1e-3)
