"""Every experiment trains, tiny, on generated data. A new script is tested by being there."""

import dataclasses
import importlib
import inspect
import json
import resource
from pathlib import Path

import pytest
from conftest import REPOSITORY, make_few, python
from test_models import CASES

from common.cli import read_comments
from common.models import MODELS
from common.run import Run

TRAININGS = sorted(path.stem for path in REPOSITORY.glob("train*.py"))
EXPERIMENTS = [*TRAININGS, "overfit"]
SCENES = {"train": 6, "val": 3, "test": 2}  # different numbers, lest one split pass for another
SMALL = {"image_size": 32, "epochs": 1, "fine_tune_epochs": 1, "pretrained": False, "width": 4}


def test_every_small_setting_is_a_parameter_of_some_script():
    mains = [inspect.signature(importlib.import_module(name).main) for name in TRAININGS]
    assert SMALL.keys() <= {flag for main in mains for flag in main.parameters}


@pytest.mark.parametrize("name", TRAININGS)
def test_it_trains_on_shapes(name, monkeypatch, without_pictures):
    make_few(monkeypatch, **SCENES)
    main = importlib.import_module(name).main
    small = {flag: value for flag, value in SMALL.items() if flag in inspect.signature(main).parameters}
    result = main(dataset="shapes", **small, run=Run(device="cpu", name="test"))
    assert 0 <= result["scores"]["mIoU"] <= 1
    names = {split: [f"{split}_{i:04}" for i in range(count)] for split, count in SCENES.items()}
    assert json.loads(Path("runs/test/splits.json").read_text()) == names
    assert list(json.loads(Path("runs/test/test.json").read_text())["image_miou"]) == names["test"]


def test_train_best_is_scored_flipped_and_scaled_beside_its_test(monkeypatch, without_pictures, capsys):
    make_few(monkeypatch, **SCENES)
    options = {"pretrained": False, "run": Run(device="cpu", name="test")}
    result = importlib.import_module("train_best").main("shapes", image_size=32, epochs=1, **options)
    other = json.loads(Path("runs/test/test_tta.json").read_text())
    assert json.loads(Path("runs/test/test.json").read_text())["loss"] == result["loss"] != other["loss"]
    assert 0 <= other["scores"]["mIoU"] <= 1 and other["floor"] == result["floor"]
    assert "test with test-time augmentation: mIoU" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_says_what_it_asks_changes_and_found(name):
    text = importlib.import_module(name).__doc__
    assert text.splitlines()[0].endswith("?")
    assert [line.split()[0] for line in text.splitlines() if line[:1].isalpha()][1:] == ["Change", "Result", "Run"]
    assert "mIoU" in text.split("\nResult ")[1].split("\nRun ")[0]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_flag_has_a_help_text(name):
    main = importlib.import_module(name).main
    assert {*inspect.signature(main).parameters} - {"run"} <= read_comments(main).keys()
    assert {field.name for field in dataclasses.fields(Run) if field.init} <= read_comments(Run).keys()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_has_no_loop_of_its_own_and_fits_on_a_screen(name):
    text = (REPOSITORY / f"{name}.py").read_text()
    assert ".backward(" not in text and len(text.splitlines()) <= (93 if name == "overfit" else 80)


@pytest.mark.slow
def test_the_readmes_first_command_knows_the_scenes_after_75_seconds_of_two_cores():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    python("train_fast.py", "--device", "cpu")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    test = json.loads(Path("runs/train_fast/test.json").read_text())
    assert test["scores"]["mIoU"] > 0.8
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2 * 75


def test_every_model_is_built_by_some_script():
    scripts = "".join(path.read_text() for path in REPOSITORY.glob("*.py"))
    assert [n for n in CASES if MODELS[n].__name__ not in scripts and f'"{n}"' not in scripts] == []
