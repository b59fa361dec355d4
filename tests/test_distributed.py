"""Real processes, started by torchrun: what several compute is what one computes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, started, write_voc
from test_engine import comparable, comparable_weights, same

from common import checkpoint
from common.datasets import load
from common.engine import evaluate
from common.loader import Loader
from common.losses import CrossEntropy, class_weights

SEVERAL = REPOSITORY / "tests" / "several.py"
FLAGS = ["--device", "cpu", "--precision", "fp32", "--name", "test"]
COUNTS = {"train": 9, "val": 6, "test": 7}


def start(processes: int, *arguments: object, restarts: int = 0, **environment: str) -> subprocess.CompletedProcess:
    """Run a script in so many processes; a single one is started without torchrun."""
    launcher = f"-m torch.distributed.run --standalone --nproc-per-node {processes} --max-restarts {restarts}".split()
    command = [sys.executable, *launcher * (processes > 1), *arguments]
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.fixture
def flags(tmp_path) -> list:
    """Flags for several.py, with data whose last batches cannot be shared evenly."""
    write_voc(tmp_path / "data", COUNTS, side=32)
    return [*FLAGS, "--data-root", tmp_path / "data", "--cache-dir", tmp_path / "cache"]


def run(flags: list, processes: int, *more: object, name: str = "test") -> tuple[dict, list[dict]]:
    """Run several.py under a name, in so many processes; return its last weights and notes."""
    done = start(processes, SEVERAL, *flags, *more, "--name", name)
    assert done.returncode == 0, done.stderr
    return comparable_weights(f"runs/{name}/last.pt"), [
        json.loads(Path(f"noted-{i}.json").read_text()) for i in range(processes)
    ]


def far_apart(ours: dict, theirs: dict) -> float:
    """Return the largest difference of any two weights."""
    return max((ours[key] - theirs[key]).abs().max().item() for key in ours.keys() | theirs.keys())


def train_losses(name: str) -> list[float]:
    return [row["train_loss"] for row in checkpoint.load(Path(f"runs/{name}/last.pt"))["history"][1:]]


def image_mious(name: str) -> dict[str, float]:
    """Return the score of each test image of a run; -1 where all is void."""
    images = json.loads(Path(f"runs/{name}/test.json").read_text())["image_miou"]
    return {name: -1 if miou is None else miou for name, miou in images.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch_size", "network", "lr"),
    [(4, "plain", 0.1), (2, "plain", 0.01), (2, "fcn_vgg16", 0.01)],  # 9, 6 and 7 images: the last batch may have one
)
def test_two_processes_see_score_and_learn_what_one_does(flags, batch_size, network, lr):
    more = ["--batch-size", batch_size, "--network", network, "--lr", lr]
    expected, (alone,) = run(flags, 1, *more, name="one")
    weights, notes = run(flags, 2, *more, name="two")
    mious, losses = image_mious("one"), train_losses("two")
    assert image_mious("two") == pytest.approx(mious, abs=0.02) and len(set(mious.values())) > 2
    for noted in notes:
        assert noted["counts"] == alone["counts"] and noted["images"] == alone["images"]
        assert noted["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    assert far_apart(weights, expected) < 1e-5
    assert losses == pytest.approx(train_losses("one"), abs=1e-5) and losses[-1] < losses[0]
    assert alone["seen"].keys() == {"train 1", "train 2", "val 0", "test 0"}
    for name in alone["seen"]:  # every image once, in all processes together; those to validate on three times
        once = alone["all"][name.split()[0]] * (3 if name == "val 0" else 1)
        together = [image for noted in notes for image in noted["seen"][name]]
        assert sorted(together) == pytest.approx(sorted(once), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_another_number_of_processes_goes_on(flags, before, after):
    more = ["--copies", 5]  # twelve batches an epoch
    expected, _ = run(flags, 1, *more)
    for name, moment in (("first", "2 1"), ("last", "2 12")):  # batch of the second epoch
        killed = start(before, SEVERAL, *flags, *more, "--name", name, KILL=f"0 {moment}")
        assert killed.returncode != 0 and len(train_losses(name)) == 1
        weights, _ = run(flags, after, *more, "--resume", name=name)
        assert far_apart(weights, expected) < 1e-5


@pytest.mark.slow
def test_a_killed_process_brings_the_job_back_from_its_last_checkpoint(flags):
    more = ["--copies", 5]
    run(flags, 2, *more)  # nor does a job go back to this run, which is an earlier one
    for moment in ("1 1 5", "1 2 12"):
        done = start(2, SEVERAL, *flags, *more, restarts=1, KILL=moment)
        assert done.returncode == 0, done.stderr
        (name,) = {*re.findall(r"model: best_(\S+)\.pt", done.stdout)}
        assert name != "test" and (f"resuming runs/{name}/last.pt after epoch 1" in done.stdout) == (moment[2] == "2")
        assert same(left_behind(name), left_behind("test"))


def left_behind(name: str) -> dict:
    """Return weights, state of the optimizer and scores of a finished run."""
    last, test = comparable(f"runs/{name}/last.pt"), json.loads(Path(f"runs/{name}/test.json").read_text())
    kept = {key: last[key] for key in ("weights", "optimizer", "experiment")}
    return kept | {"best": comparable_weights(f"best_{name}.pt"), "test": test | {"run": ""}}


@pytest.mark.slow
def test_what_is_validated_is_what_is_kept_though_each_process_has_batch_statistics_of_its_own(flags):
    script = REPOSITORY / "train_5_a.py"
    done = start(2, script, *flags, "--image-size", 32, "--epochs", 1, "--batch-size", 4, "--copies", 1)
    assert done.returncode == 0, done.stderr
    _, row = checkpoint.load(Path("runs/test/last.pt"))["history"]
    model, _ = checkpoint.load_model(Path("best_test.pt"))
    ready = started(name="check", data_root=flags[flags.index("--data-root") + 1])
    train_set, val_set, _ = load("voc2007", 32, ready, train_scale=1.67)  # as the script does
    loss, matrix = evaluate(model, Loader(val_set, 4, ready), CrossEntropy(class_weights(train_set)), ready)
    assert loss == pytest.approx(row["val_loss"], rel=1e-5) and matrix.mean_iou() == row["val_miou"]


@pytest.mark.slow
# Without and with an encoder that is frozen, in two parts, and without normalisation.
@pytest.mark.parametrize("name", ["train_4_c", "train_5_b", "train_pets", "train_ade20k"])
def test_it_trains_in_two_processes(name):
    script = REPOSITORY / f"{name}.py"
    few = "import runpy, sys; sys.argv = sys.argv[1:]; sys.path[0] = {!r}; from common.datasets.shapes import COUNTS; "
    few += "COUNTS.update(train=24, val=8, test=7); runpy.run_path(sys.argv[0], run_name='__main__')"
    Path("few.py").write_text(few.format(str(REPOSITORY)))
    options = ["--no-pretrained"] if "pretrained: bool" in script.read_text() else []
    options += ["--fine-tune-epochs", 1] if "fine_tune_epochs" in script.read_text() else []
    options += ["--batch-size", 4, "--image-size", 32, "--epochs", 1]
    done = start(2, "few.py", script, "--dataset", "shapes", *options, *FLAGS)
    assert done.returncode == 0, done.stderr
    assert json.loads(Path("runs/test/test.json").read_text())["images"] == 7
    assert torch.isfinite(torch.cat([w.flatten() for w in comparable_weights("best_test.pt").values()])).all()
