"""What the README tells readers to do, done as it is written."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def block(language: str, first: str) -> str:
    """Return the code block of the README that begins with `first`."""
    return next(text for kind, text in re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
                if kind == language and text.startswith(first))  # fmt: skip


@pytest.fixture
def clone(tmp_path) -> Path:
    """A copy of what the repository holds of code."""
    folder = tmp_path / "clone"
    shutil.copytree(REPOSITORY / "common", folder / "common", ignore=shutil.ignore_patterns("__pycache__"))
    for path in REPOSITORY.glob("*.py"):
        shutil.copy(path, folder)
    return folder


def bash(commands: str, folder: Path) -> str:
    """Run `commands` in `folder`, ended by the first that fails; return what they print."""
    commands = f'python() {{ "{sys.executable}" "$@"; }}\n{commands}'
    done = subprocess.run(["bash", "-ec", commands], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_an_experiment_of_ones_own_takes_four_commands(clone):
    out = bash(block("bash", "cp train_4_c.py"), clone)
    assert "test: mIoU" in out and "my_experiment-shapes" in out
    assert "DilatedFCN" in (clone / "my_experiment.py").read_text()
    assert "my_experiment-shapes-image_size96-epochs2" in (clone / "report.html").read_text()


@pytest.mark.slow
def test_a_model_of_ones_own_takes_a_file_and_two_lines(clone):
    (clone / "common/models/my_net.py").write_text(block("python", '"""MyNet'))
    path = clone / "common/models/__init__.py"
    text = path.read_text()
    text = text.replace(
        "from common.models.pspnet", "from common.models.my_net import MyNet\nfrom common.models.pspnet"
    )
    path.write_text(text.replace('    "unet": UNet,', '    "unet": UNet,\n    "my_net": MyNet,'))
    assert "learnt" in bash(block("bash", "python overfit.py --dataset shapes --image-size 64"), clone)


def test_every_script_in_the_tree_is_there_and_every_script_that_is_there_is_in_the_tree():
    tree = block("text", "train.py  ")
    named = set(re.findall(r"^(\w+\.py|\w+\.ipynb) ", tree, re.MULTILINE))
    assert named == {path.name for pattern in ("*.py", "*.ipynb") for path in REPOSITORY.glob(pattern)}


def test_every_flag_that_the_readme_names_exists():
    flags = set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", README)) - {"break-system-packages"}
    sources = "".join(path.read_text() for path in [*REPOSITORY.glob("*.py"), *REPOSITORY.glob("benchmarks/*.py")])
    sources += (REPOSITORY / "common/run.py").read_text()
    known = {name.replace("_", "-") for name in re.findall(r"^    (\w+): [^#\n]* = ", sources, re.MULTILINE)}
    known |= set(re.findall(r'"--([a-z-]+)"', sources)) | {"help"}
    unknown = {flag for flag in flags if flag.removeprefix("no-") not in known}
    assert unknown <= {"nproc-per-node", "max-restarts"}, unknown


def test_every_picture_and_link_of_the_readme_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (REPOSITORY / target).exists(), target
