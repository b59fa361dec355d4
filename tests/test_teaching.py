"""What docs/teaching.md tells teachers to do, done as it is written."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import REPOSITORY, write_folder
from nbclient import NotebookClient
from test_readme import bash, clone

PAGE = (REPOSITORY / "docs/teaching.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
EXERCISES = re.findall(r"^\|[^|]+\| `(\S+) (\S+)` \| `python -m pytest (\S+)(?: -k \"(.*)\")?` \|$", PAGE, re.MULTILINE)

__all__ = ["clone"]  # a fixture


def block(language: str, first: str) -> str:
    """Return the code block of the page that begins with `first`."""
    return next(text for kind, text in BLOCKS if kind == language and text.startswith(first))


def blank(folder: Path, file: str, name: str) -> None:
    """Leave a function in a copy of the repository blank, as the page does."""
    command = [sys.executable, "-c", block("python", '"""Leave'), folder / file, name]
    subprocess.run(command, check=True)


def test_every_exercise_leaves_a_function_blank_and_its_docstring_there(clone):
    assert len(EXERCISES) == len(re.findall(r"^\| [^|]+ \| `common/", PAGE, re.MULTILINE)) > 4
    for file, name, *_ in EXERCISES:
        before = (clone / file).read_text()
        blank(clone, file, name)
        assert re.search(
            rf'def {name.split(".")[-1]}\(.*?""".*?"""\n +raise NotImplementedError\n',
            (clone / file).read_text(),
            re.DOTALL,
        )
        assert len((clone / file).read_text()) < len(before)
        (clone / file).write_text(before)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "name", "tests", "chosen"), EXERCISES, ids=[name for _, name, *_ in EXERCISES])
def test_while_an_exercise_is_blank_its_tests_fail_and_the_others_of_the_file_pass(clone, file, name, tests, chosen):
    for part in ("tests", "benchmarks", "pyproject.toml"):
        copy = shutil.copytree if (REPOSITORY / part).is_dir() else shutil.copy
        copy(REPOSITORY / part, clone / part)
    blank(clone, file, name)

    def run(*options: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "pytest", tests, "--tb=no", "-p", "no:cacheprovider", *options]
        return subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=600)

    results = set(re.findall(r"^(PASSED|FAILED|ERROR) ", run("-rA", *(["-k", chosen] if chosen else [])).stdout, re.M))
    assert results == {"FAILED"}
    if chosen:
        others = run("-k", f"not ({chosen})")
        assert others.returncode == 0, others.stdout


@pytest.mark.slow
def test_a_hidden_test_is_set_handed_in_and_graded(clone):
    course = write_folder(clone / "course", 12)
    (course / "classes.txt").write_text("\n".join("abcdef"))
    (course / "test.txt").write_text("3\n5\n")
    (clone / "hidden").mkdir()
    for name in "35":
        (course / f"masks/{name}.png").rename(clone / f"hidden/{name}.png")
    bash(block("bash", "python train.py --dataset course"), clone, "--epochs 1 --image-size 32")
    out = bash(block("bash", "for student"), clone)
    assert "2 masks at their own size" in out and (clone / "grades/ada.json").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("git") and (REPOSITORY / ".git").exists()), reason="git makes the clone")
def test_the_cells_for_colab_train_in_a_fresh_clone(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    cells = block("python", "!git").replace("https://github.com/YOUR/FORK", str(REPOSITORY))
    cells = cells.replace("96", "32").replace("epochs 4", "epochs 1").replace("epochs4", "epochs1")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells.split("\n\n")])
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    text = "".join(output.text for output in notebook.cells[0].outputs if output.output_type == "stream")
    assert "test: mIoU" in text and "image/png" in notebook.cells[1].outputs[-1].data
