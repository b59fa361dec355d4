"""Real runs that are killed, or whose disk is full, at the worst moments: what is finished afterwards equals an
unbroken run bit for bit. `FAULTS=100 python -m pytest -m slow tests/test_faults.py` kills at a hundred random moments.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY, one_sentence, write_voc
from test_engine import comparable, comparable_weights, same

pytestmark = pytest.mark.slow

RANDOM_KILLS = int(os.environ.get("FAULTS", 5))

# Runs a script; when it opens a file or moves one to a name that fits a pattern, for the n-th time, something happens:
# `kill` ends the process there; `die` ends it in the middle of the next write beyond so many bytes of a file, and
# `full` lets that write fail. Nothing of the project is replaced: Python tells a hook of every file it opens or moves,
# and the limit on the size of a file is the system's.
LAUNCHER = """
import os, resource, runpy, signal, sys
from fnmatch import fnmatch
from pathlib import Path

moment, pattern, number, action, limit = sys.argv[1:6]
seen = 0

def watch(event, arguments):
    global seen
    if event == moment and fnmatch(Path(str(arguments[event == "os.rename"])).name, pattern):
        seen += 1
        if seen == int(number) and action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif seen == int(number):
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if action == "die" else signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))

sys.addaudithook(watch)
sys.argv = sys.argv[6:]
sys.path[0] = str(Path(sys.argv[0]).parent)
runpy.run_path(sys.argv[0], run_name="__main__")
"""

# A schedule, augmentation, class weights and batch normalisation.
FLAGS = ["--image-size", "24", "--epochs", "3", "--batch-size", "2", "--copies", "1"]
FLAGS += ["--device", "cpu", "--precision", "fp32", "--name", "test"]

# By what is being written: event, file, for which time, what happens, limit in bytes.
KILLS = {
    "config.json, half of it": ("open", ".config.json.tmp", 1, "die", 100),
    "decoded images, before their name": ("os.rename", "voc2007-val-*", 1, "kill", 0),
    "the first checkpoint, before its name": ("os.rename", "last.pt", 1, "kill", 0),
    "the checkpoint after epoch 2, half of it": ("os.rename", "history.csv", 1, "die", 1_000_000),
    "the first best model, half of it": ("os.rename", "last.pt", 1, "die", 1_000_000),
    "history.csv, before its name": ("os.rename", "history.csv", 1, "kill", 0),
    "test.json, half of it": ("open", ".test.json.tmp", 1, "die", 100),
}


def start(flags: list, launcher: tuple = ()) -> subprocess.Popen:
    """Start train_5_a.py in the current folder, under the launcher if that is to do something."""
    begin = ["-c", LAUNCHER, *launcher] if launcher else []
    command = [sys.executable, *begin, REPOSITORY / "train_5_a.py", *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(list(map(str, command)), text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes)


def run(flags: list, launcher: tuple = ()) -> subprocess.CompletedProcess:
    """Run it to its end."""
    with start(flags, launcher) as process:
        output, errors = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def finish(flags: list) -> None:
    """Give the same command again: with --resume if there is anything to resume, else with the name free again."""
    done = run([*flags, *resume()])
    assert done.returncode == 0, done.stderr


def resume() -> list[str]:
    """Return the flag --resume if there is anything to resume; else remove the folder that would hold the name."""
    if Path("runs/test/last.pt").exists():
        return ["--resume"]
    shutil.rmtree("runs/test", ignore_errors=True)
    return []


def outcome() -> dict:
    """Return everything that a finished run has left, but for times."""
    files = {path: Path(path).read_bytes() for path in ("runs/test/test.json", "runs/test/splits.json")}
    kinds = ("", "_predictions", "_augmentation")
    files |= {f"{kind} plot": Path(f"plots/test{kind}.png").read_bytes() for kind in kinds}
    rows = [row.split(",") for row in Path("runs/test/history.csv").read_text().splitlines()]
    files["history"] = [row[: rows[0].index("train_images_per_second")] for row in rows]
    files["config"] = json.loads(Path("runs/test/config.json").read_text())["experiment"]
    return files | {"last": comparable("runs/test/last.pt"), "best": comparable_weights("best_test.pt")}


def left_over() -> list[Path]:
    """Return what should not be there after a run."""
    return [path for path in Path().rglob("*") if path.suffix in (".tmp", ".part")]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> tuple[list, dict, float]:
    """Return flags, what an unbroken run with them leaves, and the seconds it takes after its first line."""
    folder = tmp_path_factory.mktemp("unbroken")
    write_voc(folder / "data", {"train": 10, "val": 6, "test": 7}, side=32)
    flags = [*FLAGS, "--data-root", folder / "data"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with start(flags) as process:
            process.stdout.readline()
            begin = time.monotonic()
            _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        assert not left_over()
        return flags, outcome(), time.monotonic() - begin


@pytest.mark.parametrize("what", KILLS)
def test_a_run_killed_while_it_writes_ends_as_an_unbroken_one(unbroken, what):
    flags, expected, _ = unbroken
    killed = run(flags, KILLS[what])
    assert killed.returncode == {"kill": -signal.SIGKILL, "die": -signal.SIGXFSZ}[KILLS[what][3]], killed.stderr
    finish(flags)
    assert same(outcome(), expected)
    assert not left_over()


def test_a_run_killed_at_random_moments_ends_as_an_unbroken_one(unbroken):
    flags, expected, seconds = unbroken
    draw, kills = random.Random(0), 0
    while kills < RANDOM_KILLS:
        with start([*flags, *resume()]) as process:
            process.stdout.readline()  # importing torch is no part of the run
            time.sleep(draw.uniform(0, seconds))
            process.kill()
            _, errors = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), errors
        kills += process.returncode != 0
        if process.returncode == 0 or kills == RANDOM_KILLS:
            finish(flags)
            assert same(outcome(), expected)
            assert not left_over()
            for path in ("runs/test/last.pt", "best_test.pt", "runs/test/test.json"):
                Path(path).unlink()


FULL = {
    "last.pt": ("os.rename", "history.csv", 1, "full", 1_000_000),
    "test.json": ("open", ".test.json.tmp", 1, "full", 100),
}


@pytest.mark.parametrize("name", FULL)
def test_a_disk_that_is_full_ends_a_run_in_a_sentence_and_costs_nothing_that_was_there(unbroken, name):
    flags, expected, _ = unbroken
    failed = run(flags, FULL[name])
    message = one_sentence(failed)
    assert failed.returncode == 1 and message.startswith("train_5_a.py: cannot write ") and f"{name}: " in message
    assert not left_over()
    if name == "last.pt":  # those of the epoch before are whole
        assert len(comparable("runs/test/last.pt")["history"]) == 2 and comparable_weights("best_test.pt")
    finish(flags)
    assert same(outcome(), expected)
