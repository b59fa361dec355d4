"""What the README tells readers to do, done as it is written."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch
import torchvision
from conftest import REPOSITORY, tar_of, write_folder, write_voc
from exports import labelme

from common.datasets.shapes import draw_scene

PAGES = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
WRITTEN = "".join((REPOSITORY / page).read_text(encoding="utf-8") for page in ("README.md", "docs/your-own.md"))
BLOCKS = [(kind, dedent(text)) for kind, text in re.findall(r"```(\w+)\n(.*?) *```", WRITTEN, re.DOTALL)]
TRIED = []  # beginnings of the blocks of commands that a test runs


def block(language: str, first: str) -> str:
    """Return the code block of the pages that begins with `first`."""
    return next(text for kind, text in BLOCKS if kind == language and text.startswith(first))


def commands(first: str):
    """Mark a slow test that runs the block of commands which begins with `first`, and hand it the block."""
    TRIED.append(first)
    return pytest.mark.parametrize("written", [pytest.param(block("bash", first), id=first, marks=pytest.mark.slow)])


@pytest.fixture
def clone(tmp_path) -> Path:
    """A copy of what the repository holds of code and pages, with fewer generated scenes."""
    folder = tmp_path / "clone"
    for part in ("common", "docs", "tools"):
        shutil.copytree(REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for path in REPOSITORY.glob("*.py"):
        shutil.copy(path, folder)
    shapes = folder / "common/datasets/shapes.py"
    shapes.write_text(
        re.sub(r"^COUNTS = .*", 'COUNTS = {"train": 24, "val": 8, "test": 8}', shapes.read_text(), flags=re.M)
    )
    return folder


def bash(written: str, folder: Path, smaller: str = "", **environment: str) -> str:
    """Run the commands `written` in `folder`, ended by the first that fails; return what they print.

    Trainings get the flags in `smaller` too, for none of them is waited for.
    """
    python = f"""python() {{
        case $1 in train*) set -- "$@" {smaller};; esac
        "{sys.executable}" "$@"
    }}"""
    done = subprocess.run(["bash", "-ec", f"{python}\n{written}"], cwd=folder, capture_output=True, text=True,
                          timeout=600, env={**os.environ, **environment})  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


START = [text for kind, text in BLOCKS if kind == "bash" and "requirements" in text]


def test_all_other_blocks_of_commands_are_run_by_a_test():
    others = [text for kind, text in BLOCKS if kind == "bash" and text not in START]
    assert len(others) > 4 and not [text for text in others if not text.startswith(tuple(TRIED))]


@commands("python -m tools.check path/to/folder")
def test_a_folder_of_ones_own_is_checked_learnt_scored_and_new_photographs_are_labelled(clone, tmp_path, written):
    write_folder(clone / "path/to/folder", 60, side=64)
    new = clone / "path/to/new/photographs"
    new.mkdir(parents=True)
    draw_scene(7, 90)[0].save(new / "Straße am See.JPG")
    weights = tmp_path / "hub/checkpoints/resnet18-f37072fd.pth"  # as if fetched before: there is no network here
    weights.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), weights)
    smaller = "--epochs 1 --image-size 32 --name train_best-folder"
    out = bash(f"{written}\npython -m tools.export", clone, smaller, TORCH_HOME=str(tmp_path))
    assert "share of the pixels" in out and "test: mIoU" in out and (clone / "report.html").is_file()
    assert any("Straße am See" in path.name for path in (clone / "predictions").rglob("*"))
    assert (clone / "best_train_best-folder.onnx").is_file()


@commands("python -m tools.import_labels path/to/export")
def test_an_export_of_a_labelling_program_becomes_a_folder_of_ones_own(clone, written):
    new = clone / "path/to/new/photographs"
    shutil.copytree(labelme(clone / "path/to/export"), new, ignore=shutil.ignore_patterns("*.json"))
    lines = [line.split("#")[0] for line in block("bash", "python -m tools.check path/to/folder").splitlines()]
    train = "python train.py --dataset path/to/folder --image-size 32 --epochs 1 --name tried"
    out = bash("\n".join([written, f"{lines[0]} || (( $? == 1 ))", train, lines[2]]), clone)
    assert "path/to/folder: 9 images, 3 classes: background, cat, dog" in out and "9 samples, 0 problems" in out
    assert len([*(clone / "predictions").rglob("overlays/**/*.png")]) == 9


@commands("python download.py")
def test_voc_2007_is_fetched_and_trained_on(clone, tmp_path, server, written):
    path = clone / "download.py"
    code = path.read_text()
    for name, counts in {
        "VOCtrainval_06-Nov-2007": {"train": 10, "val": 6},
        "VOCtest_06-Nov-2007": {"test": 7},
    }.items():
        write_voc(tmp_path / name, counts)
        body = server.files[f"/voc2007/{name}.tar"] = tar_of(tmp_path / name / "VOCdevkit")
        code = re.sub(rf'({name}\.tar", )"\w+"', rf'\1"{hashlib.md5(body).hexdigest()}"', code)
    path.write_text(re.sub(r"VOC_HOSTS = \(.*\)", f'VOC_HOSTS = ("{server.url}",)', code))
    out = bash(written, clone, "--epochs 1 --image-size 32 --batch-size 4")
    assert "voc2007: 10 train, 6 val, 7 test images" in out and "test: mIoU" in out


@commands("python train.py --lr 3e-4")
def test_a_parameter_is_changed_by_a_flag(clone, written):
    assert "test: mIoU" in bash(written, clone, "--epochs 1 --image-size 32 --dataset shapes")
    assert list(clone.glob("best_train*lr0.0003*"))


@commands("cp train_4_c.py")
def test_an_experiment_of_ones_own_takes_four_commands(clone, written):
    out = bash(written, clone)
    assert "test: mIoU" in out and "my_experiment-shapes" in out
    assert "DilatedFCN" in (clone / "my_experiment.py").read_text()
    assert "my_experiment-shapes-image_size96-epochs2" in (clone / "report.html").read_text()


@commands("mkdir -p experiments")
def test_a_folder_of_experiments_of_ones_own_works(clone, written):
    assert "more_copies-shapes-image_size96-epochs2-copies5" in bash(written, clone)


@commands("python overfit.py --dataset shapes --image-size 64 --model my_net")
def test_a_model_of_ones_own_takes_a_file_and_two_lines(clone, written):
    (clone / "common/models/my_net.py").write_text(block("python", '"""MyNet'))
    path = clone / "common/models/__init__.py"
    text = path.read_text()
    text = text.replace(
        "from common.models.pspnet", "from common.models.my_net import MyNet\nfrom common.models.pspnet"
    )
    path.write_text(text.replace('    "unet": UNet,', '    "unet": UNet,\n    "my_net": MyNet,'))
    assert "trained" in bash(written, clone)


@pytest.mark.skipif(not (shutil.which("git") and (REPOSITORY / ".git").exists()), reason="git tells ours from others")
def test_the_readme_names_every_script_and_no_other():
    named = set(re.findall(r"(?<![/\w])(\w+\.py|\w+\.ipynb)\b", (REPOSITORY / "README.md").read_text()))
    command = ["git", "-c", "safe.directory=*", "ls-files", ":(glob)*.py", ":(glob)*.ipynb"]  # no reader's experiments
    scripts = {*subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout.split()}
    assert scripts <= named and not {name for name in named - scripts if name.startswith("train")}


def test_every_flag_that_the_readme_names_exists():
    flags = {flag for page in PAGES for flag in re.findall(r"(?<![\w-])--([a-z][a-z-]+)", page.read_text())}
    sources = "".join(
        path.read_text() for part in ("", "benchmarks/", "tools/") for path in REPOSITORY.glob(f"{part}*.py")
    )
    sources += (REPOSITORY / "common/run.py").read_text()
    known = {name.replace("_", "-") for name in re.findall(r"^    (\w+): [^#\n]* = ", sources, re.MULTILINE)}
    known |= set(re.findall(r'"--([a-z-]+)"', sources)) | {"help"}
    unknown = {flag for flag in flags if flag.removeprefix("no-") not in known}
    others = {
        *("job-name", "gres", "cpus-per-task", "time", "requeue"),  # Slurm's
        "logdir",
        "standalone",
        "nproc-per-node",
        "max-restarts",
        "nnodes",
        "rdzv-backend",
        "rdzv-id",
        "rdzv-endpoint",
    }
    assert unknown <= others, unknown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_picture_and_link_is_there(page):
    for target, heading in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
        if not target.startswith("http"):
            path = page.parent / target if target else page
            headings = re.findall(r"^#+ (.*)", path.read_text(), re.MULTILINE) if path.suffix == ".md" else []
            assert path.exists() and (not heading or heading in [h.lower().replace(" ", "-") for h in headings]), target
