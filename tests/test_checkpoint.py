import os
import re
from pathlib import Path

import pytest
import torch
from conftest import started

from common import checkpoint
from common.checkpoint import Checkpointer
from common.datasets import load
from common.datasets.segmentation_set import SegmentationSet
from common.datasets.shapes import CLASSES, PALETTE
from common.models import BasicFCN, DilatedFCN
from common.system.errors import UserError


@pytest.fixture
def saved(voc_root, tmp_path):
    """A checkpoint of an untrained BasicFCN with 21 classes, and its model."""
    run = started(data_root=voc_root)
    model = BasicFCN(21)
    train_set, _, _ = load("voc2007", 32, run)
    path = tmp_path / "best_test.pt"
    checkpoint.save(path, checkpoint.describe(model, train_set, run, [{"epoch": 1, "val_miou": 0.5}]))
    return path, model


def test_a_checkpoint_needs_nothing_else_to_predict(saved):
    path, model = saved
    loaded, contents = checkpoint.load_model(path)
    images = torch.rand(1, 3, 50, 41)
    assert torch.equal(loaded(images), model.eval()(images)) and not loaded.training
    assert contents["classes"][8] == "cat" and contents["palette"][8] == [64, 0, 0]
    assert contents["image_size"] == [32, 32] and contents["dataset"] == "voc2007"


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_truncated_checkpoint_is_named(saved, size):
    path, _ = saved
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    with pytest.raises(UserError, match=r"best_test\.pt (is damaged|holds more than plain)"):
        checkpoint.load(path)


def test_a_file_that_smuggles_code_is_refused_and_not_run(tmp_path):
    class Smuggler:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/executed",)

    path = tmp_path / "evil.pt"
    torch.save({"format": 1, "model": Smuggler()}, path)
    with pytest.raises(UserError, match=r"evil\.pt holds more than plain"):
        checkpoint.load(path)
    assert not (tmp_path / "executed").exists()


def test_weights_of_other_shapes_are_named_in_a_sentence(saved, tmp_path):
    contents = checkpoint.load(saved[0])
    key = next(iter(contents["weights"]))
    contents["weights"][key] = torch.zeros(7, 2)
    torch.save(contents, tmp_path / "one.pt")
    with pytest.raises(UserError, match=rf"one\.pt does not fit basic_fcn: .*{re.escape(key)}") as error:
        checkpoint.load_model(tmp_path / "one.pt")
    assert len(str(error.value)) < 400 and str(error.value).isprintable()


def test_a_checkpoint_of_a_model_whose_arguments_were_edited_since_is_refused_in_a_sentence(saved, tmp_path):
    contents = checkpoint.load(saved[0])
    torch.save({**contents, "arguments": {"num_classes": [21]}}, tmp_path / "old.pt")
    with pytest.raises(UserError, match=r"old\.pt: basic_fcn is no longer built from its arguments"):
        checkpoint.load_model(tmp_path / "old.pt")


def test_a_checkpoint_of_format_1_is_read(saved):
    path, _ = saved
    contents = checkpoint.load(path)
    old = {**contents, "format": 1, "coding": contents["label_map"]}
    del old["label_map"]
    torch.save(old, path)
    assert checkpoint.load(path)["label_map"] == contents["label_map"]


def test_other_files_and_newer_formats_are_named(saved, tmp_path):
    with pytest.raises(UserError, match=r"missing\.pt is missing"):
        checkpoint.load(tmp_path / "missing.pt")
    torch.save({"weights": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="is no checkpoint of this project"):
        checkpoint.load(tmp_path / "other.pt")
    contents = checkpoint.load(saved[0])
    torch.save({**contents, "format": checkpoint.FORMAT + 1}, tmp_path / "newer.pt")
    with pytest.raises(UserError, match="has format"):
        checkpoint.load(tmp_path / "newer.pt")
    torch.save({**contents, "model": "os.system"}, tmp_path / "unknown.pt")
    with pytest.raises(UserError, match=r"holds os\.system, which is not in MODELS"):
        checkpoint.load_model(tmp_path / "unknown.pt")


def test_a_failed_write_leaves_the_old_file(saved):
    path, _ = saved
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), checkpoint.atomic(path) as temporary:
        temporary.write_bytes(b"half")
        assert path.read_bytes() == before and temporary != path
        1 / 0  # noqa: B018
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir() if p.is_file()) == ["best_test.pt"]


def test_a_file_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with path.open() as reader:  # whoever has the old file open keeps it whole: it was not written into
        with checkpoint.atomic(path) as temporary:
            temporary.write_text("new and longer")
        assert reader.read() == "old" and path.read_text() == "new and longer"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_ends_in_a_sentence(saved, monkeypatch):
    path, _ = saved
    before, contents = path.read_bytes(), checkpoint.load(path)
    monkeypatch.setattr(type(path), "with_name", lambda self, name: type(path)("/dev/full"))
    monkeypatch.setattr(type(path), "unlink", lambda self: None)
    with pytest.raises(UserError, match=r"cannot write .*best_test\.pt"):
        checkpoint.save(path, contents)
    assert path.read_bytes() == before


# going on with a training


class Training:
    """Two convolutions that are trained step by step, in a run called "test"."""

    def __init__(self, kind=torch.optim.AdamW, **options):
        self.run, self.model = started(parameters={"lr": 0.1}), DilatedFCN(6)
        zeros = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
        self.data = SegmentationSet(zeros, zeros[0], ["0"], CLASSES, PALETTE, "shapes", "val")
        self.optimizer = kind(self.model.parameters(), lr=0.1, **options)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=9)
        self.checkpointer = Checkpointer(self.model, self.optimizer, self.scheduler, self.data, self.run)

    def step(self):
        self.model(self.data.images / 255).sum().backward()
        self.optimizer.step()
        self.scheduler.step()

    def save(self):
        self.checkpointer.save([{"epoch": 1, "stage": 1, "val_miou": 0.5}])

    def resume(self):
        self.run.resume = True
        return self.checkpointer.restore()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((torch.optim.AdamW, {"fused": True}), (torch.optim.SGD, {"momentum": 0.9}), (torch.optim.RMSprop, {})),
    ],
)
def test_any_optimizer_goes_on_where_it_was(kind, options):
    whole, later = Training(kind, **options), Training(kind, **options)
    whole.step()
    whole.save()
    history, finished = later.resume()
    assert len(history) == 1 and not finished
    for training in (whole, later):
        training.optimizer.zero_grad()
        training.step()
    assert all(map(torch.equal, whole.model.state_dict().values(), later.model.state_dict().values()))


@pytest.mark.parametrize(
    ("kind", "options"), [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.AdamW, {"betas": (0.5, 0.9), "eps": 1e-3})]
)
def test_an_optimizer_that_was_edited_in_the_script_is_not_given_the_state_of_the_other(kind, options):
    training = Training()
    training.step()
    training.save()
    with pytest.raises(UserError, match="was trained with another optimizer, or other settings of it"):
        Training(kind, **options).resume()
