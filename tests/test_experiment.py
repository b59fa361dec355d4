"""Scripts that are edited and run again: no run takes another one's place."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
from common.experiment import numbered_name
from conftest import REPOSITORY, make_few

from common import checkpoint
from common.run import Run
from common.system.errors import UserError

FP32 = {"device": "cpu", "precision": "fp32"}


@pytest.fixture
def script(few_shapes, without_pictures):
    """A copy of train.py with a smaller network; the function runs its main after an edit, if any."""
    path = Path("mine.py")
    path.write_text((REPOSITORY / "train.py").read_text().replace("BasicFCN", "DilatedFCN"))

    def run(old: str = "", new: str = "", epochs: int = 1, **settings) -> dict:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new) if old else text)
        spec = importlib.util.spec_from_file_location("mine", path.absolute())
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main("shapes", image_size=32, epochs=epochs, run=Run(**FP32, **settings))

    return run


NAME = "mine-shapes-image_size32-epochs1"


def left() -> dict[str, bytes]:
    """Everything that lies in the current folder but for the script and the cache."""
    return {
        str(path): path.read_bytes()
        for path in Path().rglob("*")
        if path.is_file() and path.parts[0] not in (".cache", "mine.py")
    }


def test_a_default_that_is_edited_makes_a_run_of_its_own_that_says_what_differs(script, capsys):
    script()
    before = left()
    capsys.readouterr()
    script("lr: float = 1e-3", "lr: float = 1e-2")
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(f"{NAME}-2 ({NAME} had lr 0.001 -> 0.01, other code in the script): cpu")
    after = left()
    assert {path: after[path] for path in before} == before
    assert f"best_{NAME}-2.pt" in after and b"lr: float = 1e-2" in after[f"runs/{NAME}-2/mine.py"]
    assert json.loads(after[f"runs/{NAME}-2/config.json"])["experiment"]["lr"] == 0.01


def test_an_edit_that_fails_before_its_first_epoch_ends_leaves_all_as_it_was(script):
    script()
    before = left()
    with pytest.raises(NameError):
        script("criterion = CrossEntropy()", "criterion = NoSuchLoss()")
    assert left() == before


def test_an_equal_run_takes_the_place_of_the_one_before(script):
    first, before = script(), left()
    assert script("\nResult    ", "\nResult    new, and ") == first  # the docstring is no part of the experiment
    assert left().keys() == before.keys()


def test_resuming_takes_the_newest_run_of_these_settings_or_says_what_was_edited(script, capsys):
    script(epochs=2, name="mine")
    script("lr: float = 1e-3", "lr: float = 1e-2", epochs=2, name="mine")
    capsys.readouterr()
    script(epochs=3, name="mine", resume=True)
    assert "resuming last_mine-2.pt after epoch 2" in capsys.readouterr().out
    assert json.loads(Path("runs/mine-2/config.json").read_text())["experiment"]["epochs"] == 3
    script("lr: float = 1e-2", "lr: float = 1e-3", epochs=3, name="mine", resume=True)
    assert "resuming last_mine.pt after epoch 2" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"nothing to resume: mine-2 had lr 0\.01 -> 0\.0001; give"):
        script("lr: float = 1e-3", "lr: float = 1e-4", epochs=3, name="mine", resume=True)


def test_other_images_make_a_run_of_their_own(script, capsys, monkeypatch):
    script()
    before = left()
    make_few(monkeypatch, train=25)
    script()
    assert f"this run is called {NAME}-2: {NAME} had other images or masks" in capsys.readouterr().out
    after = left()
    assert {path: after[path] for path in before} == before and f"best_{NAME}-2.pt" in after


def test_a_corrected_mask_makes_a_run_of_its_own(script, capsys, monkeypatch):
    script()
    before = left()
    monkeypatch.setattr(
        sys.modules["common.datasets.shapes"], "FREQUENCIES", (0, 0.2, 0.2, 0.2, 0.2, 0.2)
    )  # the same names, other masks
    shutil.rmtree(".cache")
    script()
    assert f"this run is called {NAME}-2: {NAME} had other images or masks" in capsys.readouterr().out
    assert {path: left()[path] for path in before} == before


MISTAKES = {
    "model = DilatedFCN(train_set.num_classes + 1)": r"returns \(\d+, 7, 32, 32\), and should return",
    "model = torchvision.models.segmentation.lraspp_mobilenet_v3_large(None, weights_backbone=None)": "TorchvisionNetw",
    "model = DilatedFCN(6).requires_grad_(False)": "nothing is trained: the loss depends on frozen parameters only",
    "criterion = torch.nn.CrossEntropyLoss()": r"met the mask value 255, .* with ignore_index=255",
    "criterion = torch.nn.CrossEntropyLoss(ignore_index=255, reduction='none')": r"gives the shape .* a scalar tensor",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_ordinary_mistakes_end_in_a_sentence_before_the_first_step_and_leave_nothing(script, line):
    with pytest.raises(UserError, match=MISTAKES[line]):
        script("    optimizer = ", f"    import torchvision\n    {line}\n    optimizer = ")
    assert not list(Path().glob("*.pt")) and not Path("runs").exists()


def test_a_cosine_that_is_drawn_over_epochs_is_refused_for_fit_steps_it_by_the_batch(script):
    cosine = "torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)"
    with pytest.raises(UserError, match=r"T_max=3\) ends after 3 batches.* T_max=epochs \* len\(train_loader\)"):
        script("criterion, optimizer, ", f"criterion, optimizer, {cosine}, ", epochs=3)


def test_a_model_whose_settings_are_not_known_any_more_is_not_replaced():
    Path("best_x.pt").write_bytes(b"a model")
    assert numbered_name("x", {"experiment": {}, "fingerprints": {}}) == ("x-2", "x is of unknown settings")


MY_NET = """class MyNet(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layers = torch.nn.Conv2d(3, num_classes, 3, padding=1)

    def forward(self, images):
        return self.layers(images)


def main("""
PLAIN = "torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 6, 1))"
THEIRS = "TorchvisionNetwork(torchvision.models.segmentation.lraspp_mobilenet_v3_large(None, True, 6, None))"


@pytest.mark.parametrize("model", ["MyNet(6)", PLAIN, THEIRS])
def test_a_model_that_is_written_in_the_script_trains_is_tested_and_resumed(script, capsys, model):
    text = Path("mine.py").read_text().replace("def main(", MY_NET, 1)
    text = text.replace("DilatedFCN(train_set.num_classes)", model)
    Path("mine.py").write_text(text.replace("import torch\n", "import torch\nimport torchvision\n").replace(
        "import DilatedFCN", "import TorchvisionNetwork"))  # fmt: skip
    whole = script(epochs=2, name="whole")
    script(epochs=1, name="part")
    assert script(epochs=2, name="part", resume=True)["scores"] == whole["scores"]
    name = {"MyNet(6)": "MyNet", PLAIN: "Sequential", THEIRS: "TorchvisionNetwork"}[model]
    out = capsys.readouterr().out
    assert out.index(f"{name} is not in MODELS: tools/predict.py, tools/report.py and the notebook") < out.index(
        "epoch 1/2"
    )
    with pytest.raises(UserError, match=rf"best_whole\.pt holds {name}, which is not in MODELS"):
        checkpoint.load_model(Path("best_whole.pt"))


def test_a_run_whose_records_are_deleted_is_judged_by_its_checkpoint(script, capsys):
    script(name="mine")
    shutil.rmtree("runs")
    script(epochs=2, name="mine", resume=True)
    assert "resuming last_mine.pt after epoch 1" in capsys.readouterr().out
    shutil.rmtree("runs")
    with pytest.raises(UserError, match=r"last_mine\.pt was trained with other settings: lr 0\.001 -> 0\.01;"):
        script("lr: float = 1e-3", "lr: float = 1e-2", epochs=3, name="mine", resume=True)
