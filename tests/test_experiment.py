"""Scripts that are edited and run again: no run takes another one's place, and a run goes on only as it began."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from conftest import REPOSITORY, write_folder

from common import checkpoint
from common.run import Run
from common.system.errors import UserError

FP32 = {"device": "cpu", "precision": "fp32"}


@pytest.fixture
def script(few_shapes, without_pictures):
    """A copy of train.py with a smaller network; the function runs its main after an edit, if any."""
    path = Path("mine.py")
    path.write_text((REPOSITORY / "train.py").read_text().replace("BasicFCN", "DilatedFCN"))

    def run(old: str = "", new: str = "", epochs: int = 1, dataset: str = "shapes", **settings) -> dict:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new) if old else text)
        spec = importlib.util.spec_from_file_location("mine", path.absolute())
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main(dataset, image_size=32, epochs=epochs, run=Run(**FP32 | settings))

    return run


NAME = "mine-shapes-image_size32-epochs1"


def left() -> dict[str, bytes]:
    """Everything that lies in the current folder but for the script and the cache."""
    return {
        str(path): path.read_bytes()
        for path in Path().rglob("*")
        if path.is_file() and path.parts[0] not in (".cache", "mine.py")
    }


def test_an_edited_script_that_is_run_again_replaces_nothing(script, capsys):
    script()
    before = left()
    capsys.readouterr()
    script("lr: float = 1e-3", "lr: float = 1e-2")
    assert f"a run named {NAME} exists, so this one is named {NAME}-2" in capsys.readouterr().out
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


def test_resuming_takes_the_newest_run_of_the_name_or_the_one_that_is_given(script, capsys):
    script(epochs=2, name="mine")
    script(epochs=2, name="mine")
    capsys.readouterr()
    for resume, run in ((True, "mine-2"), ("mine", "mine")):
        script(epochs=3, name="mine", resume=resume)
        out = capsys.readouterr().out
        assert f"resuming runs/{run}/last.pt after epoch 2" in out and "epoch 3/3" in out
        assert json.loads(Path(f"runs/{run}/config.json").read_text())["experiment"]["epochs"] == 3
    assert sorted(path.name for path in Path("runs").iterdir()) == ["mine", "mine-2"]
    with pytest.raises(UserError, match=r"runs/yours has no last\.pt \(newest runs with one: mine, mine-2\)"):
        script(epochs=3, name="mine", resume="yours")


def test_a_run_is_not_resumed_with_other_settings_which_are_named(script):
    script(name="mine")
    before = left()
    with pytest.raises(UserError, match=r"mine began with other settings: seed 0 -> 1, lr 0\.001 -> 0\.01; give the"):
        script("lr: float = 1e-3", "lr: float = 1e-2", epochs=2, name="mine", resume=True, seed=1)
    assert left() == before


def test_a_script_that_is_edited_before_a_resume_is_kept_beside_the_first_version(script, capsys):
    script(name="mine")
    first = Path("runs/mine/mine.py").read_text()
    script(
        "criterion = CrossEntropy()",
        "criterion = torch.nn.CrossEntropyLoss(ignore_index=255)",
        2,
        name="mine",
        resume=True,
    )
    assert Path("runs/mine/mine.py").read_text() == first
    assert "CrossEntropyLoss" in Path("runs/mine/mine-resumed.py").read_text()
    assert "the script has changed since mine began" in capsys.readouterr().out


def test_a_resumed_run_takes_over_the_precision_that_it_began_with(script, capsys):
    script(name="mine", precision="bf16")
    script(epochs=2, name="mine", precision="auto", resume=True)
    assert "mine: cpu with 1 threads, bf16" in capsys.readouterr().out.split("resuming")[0].splitlines()[-2]
    with pytest.raises(UserError, match="precision bf16 -> fp32"):
        script(epochs=2, name="mine", resume=True)


@pytest.mark.parametrize("number", [4, 12])  # a mask that was there, or an image more
def test_a_run_is_not_resumed_with_other_images_or_a_corrected_mask(script, number):
    write_folder(Path("photos"), 12)
    script(dataset="photos", name="mine")
    last = Path("runs/mine/last.pt").read_bytes()
    for name in ["masks/{}.png", "images/{}.jpg"][: 1 + (number == 12)]:
        shutil.copy(Path("photos", name.format(3)), Path("photos", name.format(number)))
    with pytest.raises(UserError, match="mine began with other images, masks or splits"):
        script(dataset="photos", epochs=2, name="mine", resume=True)
    assert Path("runs/mine/last.pt").read_bytes() == last


MISTAKES = {
    "model = DilatedFCN(train_set.num_classes + 1)": r"returns \(\d+, 7, 32, 32\), but should return",
    "model = torchvision.models.segmentation.lraspp_mobilenet_v3_large(None, weights_backbone=None)": "only .out.",
    "model = DilatedFCN(6).requires_grad_(False)": "nothing is trained: the loss depends on frozen parameters only",
    "criterion = torch.nn.CrossEntropyLoss()": r"met the mask value 255, .* ignore_index=255",
    "criterion = torch.nn.CrossEntropyLoss(ignore_index=255, reduction='none')": r"gives the shape .* a scalar tensor",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_ordinary_mistakes_end_in_a_sentence_before_the_first_step_and_leave_nothing(script, line):
    with pytest.raises(UserError, match=MISTAKES[line]):
        script("    optimizer = ", f"    import torchvision\n    {line}\n    optimizer = ")
    assert not left()


def test_a_main_without_its_decorator_is_told_of_it(script):
    with pytest.raises(UserError, match="write @experiment above main"):
        script("@experiment\n", "")


def test_a_cosine_that_is_drawn_over_epochs_is_refused_for_fit_steps_it_by_the_batch(script):
    cosine = "torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)"
    with pytest.raises(UserError, match=r"T_max=3\) ends after 3 batches.* T_max=epochs \* len\(train_loader\)"):
        script("criterion, optimizer, ", f"criterion, optimizer, {cosine}, ", epochs=3)


MY_NET = """class MyNet(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layers = torch.nn.Conv2d(3, num_classes, 3, padding=1)

    def forward(self, images):
        return self.layers(images)


@experiment
def main("""
PLAIN = "torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 6, 1))"


@pytest.mark.parametrize("model", ["MyNet(6)", PLAIN])
def test_a_model_that_is_written_in_the_script_trains_is_tested_and_resumed(script, capsys, model):
    text = Path("mine.py").read_text().replace("@experiment\ndef main(", MY_NET, 1)
    text = text.replace("DilatedFCN(train_set.num_classes)", model)
    Path("mine.py").write_text(text)
    whole = script(epochs=2, name="whole")
    script(epochs=1, name="part")
    assert script(epochs=2, name="part", resume=True)["scores"] == whole["scores"]
    name = {"MyNet(6)": "MyNet", PLAIN: "Sequential"}[model]
    out = capsys.readouterr().out
    assert out.index(f"{name} is not in MODELS, so tools.predict, tools.report") < out.index("epoch 1/2")
    with pytest.raises(UserError, match=rf"best_whole\.pt holds {name}, which is not in MODELS"):
        checkpoint.load_model(Path("best_whole.pt"))
