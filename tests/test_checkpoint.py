import os
from pathlib import Path

import pytest
import torch
from conftest import started, write_checkpoint

import train
from common import checkpoint
from common.checkpoint import Checkpointer
from common.datasets.segmentation_set import SegmentationSet
from common.datasets.shapes import CLASSES, PALETTE
from common.models import BasicFCN, DilatedFCN
from common.run import Run
from common.system.errors import UserError


@pytest.fixture
def saved():
    """A checkpoint of an untrained BasicFCN, and its model."""
    return Path("best_test.pt"), write_checkpoint(Path("best_test.pt"), BasicFCN(len(CLASSES)))


def test_a_checkpoint_needs_nothing_else_to_predict(saved):
    path, model = saved
    loaded, contents = checkpoint.load_model(path)
    images = torch.rand(1, 3, 50, 41)
    assert torch.equal(loaded(images), model(images)) and not loaded.training
    assert contents["classes"] == list(CLASSES) and contents["palette"][1] == list(PALETTE[1])
    assert contents["image_size"] == [32, 32] and contents["dataset"] == "shapes"


def test_a_file_that_smuggles_code_is_refused_and_not_run(tmp_path):
    class Smuggler:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/executed",)

    path = tmp_path / "evil.pt"
    torch.save({"format": 1, "model": Smuggler()}, path)
    with pytest.raises(UserError, match=r"evil\.pt holds more than plain"):
        checkpoint.load(path)
    assert not (tmp_path / "executed").exists()


PROBLEMS = [
    (lambda c: {"weights": {}}, r"x\.pt is not a checkpoint of this project"),
    (lambda c: c | {"format": checkpoint.FORMAT + 1}, r"x\.pt has format 3"),
    (lambda c: c | {"model": "MyNet"}, r"x\.pt holds MyNet, which is not in MODELS"),
    (lambda c: c | {"arguments": {"num_classes": [21]}}, r"x\.pt: basic_fcn no longer takes these arguments"),
    (lambda c: c | {"arguments": {"num_classes": 7}}, r"x\.pt does not fit basic_fcn: .*size mismatch"),
]


@pytest.mark.parametrize(("change", "message"), PROBLEMS)
def test_a_checkpoint_of_something_else_is_refused_in_a_sentence(saved, change, message):
    torch.save(change(checkpoint.load(saved[0])), "x.pt")
    with pytest.raises(UserError, match=message) as error:
        checkpoint.load_model(Path("x.pt"))
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


def test_a_missing_or_damaged_checkpoint_is_named(saved):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"best_test\.pt is damaged"):
        checkpoint.load(path)
    path.unlink()
    with pytest.raises(UserError, match=r"best_test\.pt is missing"):
        checkpoint.load(path)


def test_a_file_is_replaced_in_one_step_and_a_failed_write_leaves_the_old_one(tmp_path):
    path = tmp_path / "folder/file"
    with checkpoint.atomic(path) as temporary:
        temporary.write_text("old")
    with path.open() as reader:  # whoever has the old file open keeps it whole: it was not written into
        with checkpoint.atomic(path) as temporary:
            temporary.write_text("new and longer")
        assert reader.read() == "old" and path.read_text() == "new and longer"
    with pytest.raises(ZeroDivisionError), checkpoint.atomic(path) as temporary:
        temporary.write_text("half")
        1 / 0  # noqa: B018
    assert path.read_text() == "new and longer" and list(path.parent.iterdir()) == [path]


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

    def __init__(self, kind=torch.optim.AdamW, resume=False, **options):
        self.run, self.model = started(parameters={"lr": 0.1}, resume=resume), DilatedFCN(6)
        zeros = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
        self.data = SegmentationSet(zeros, zeros[0], ["0"], CLASSES, PALETTE, "shapes", "val")
        self.optimizer = kind(self.model.parameters(), lr=0.1, **options)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=9)
        self.checkpointer = Checkpointer(self.model, self.optimizer, self.scheduler, self.data, self.data, self.run)

    def step(self):
        self.model(self.data.images / 255).sum().backward()
        self.optimizer.step()
        self.scheduler.step()

    def save(self):
        self.checkpointer.save([{"epoch": 1, "val_miou": 0.5, "kept": 1.0}])


@pytest.mark.parametrize(
    ("kind", "options"),
    [(torch.optim.AdamW, {"fused": True}), (torch.optim.SGD, {"momentum": 0.9}), (torch.optim.RMSprop, {})],
)
def test_any_optimizer_goes_on_where_it_was(kind, options):
    whole = Training(kind, **options)
    whole.step()
    whole.save()
    later = Training(kind, resume=True, **options)
    assert len(later.checkpointer.restore()) == 1
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
    with pytest.raises(UserError, match="was trained with another optimizer or other optimizer settings"):
        Training(kind, resume=True, **options).checkpointer.restore()


def test_a_training_does_not_go_on_with_another_schedule():
    Training().save()
    later = Training(resume=True)
    later.checkpointer.scheduler = torch.optim.lr_scheduler.StepLR(later.optimizer, 3)
    with pytest.raises(UserError, match="was trained with another schedule"):
        later.checkpointer.restore()


def test_a_training_starts_from_the_weights_that_fit_and_says_which_do_not(voc_root, without_pictures, capsys):
    model = write_checkpoint(Path("best_scenes.pt"), BasicFCN(len(CLASSES)))
    settings = {"dataset": "voc2007", "image_size": 32, "epochs": 1, "lr": 0.0}
    run = Run(device="cpu", precision="fp32", data_root=voc_root, init="best_scenes.pt")
    train.main(**settings, run=run)
    said = "starting from best_scenes.pt: 70 of 72 tensors, but not classifier.weight, classifier.bias"
    assert said in capsys.readouterr().out
    (path,) = Path().glob("best_train-*init_scenes*.pt")
    trained = checkpoint.load(path)
    for name, weight in model.named_parameters():
        assert torch.equal(trained["weights"][name], weight) == (not name.startswith("classifier")), name
    assert trained["experiment"]["init"] == "best_scenes.pt"


def test_weights_of_another_network_are_no_start(saved):
    path, _ = saved
    with pytest.raises(UserError, match=r"--init best_test.pt: none of its weights fits dilated_fcn"):
        checkpoint.start_from(DilatedFCN(3), path)
