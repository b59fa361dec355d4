import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, python

import train
from common.cli import cli, read_size

SCRIPT = '''
"""What is this?"""
from typing import Literal
from common.cli import cli
from common.datasets import Size
from common.run import Run, experiment

@experiment
def main(
    dataset: str = "voc2007",  # which data, 100 % of it
    epochs: int = 60,  # passes
    lr: float = 1e-3,  # rate
    pretrained: bool = True,  # start from ImageNet
    model: Literal["unet", "fcn"] = "unet",  # which network
    size: Size = 224,  # which side
    other_size: Size = (48, 64),  # which sides
    run: Run = Run(),
):
    print(dataset, epochs, lr, pretrained, model, size, run.seed, run.name)

if __name__ == "__main__":
    cli(main)
'''


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """The main of a script of one's own."""
    (tmp_path / "experiment.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("experiment").main
    del sys.modules["experiment"]


def test_a_choice_mistyped_in_the_script_itself_is_named(tmp_path):
    (tmp_path / "experiment.py").write_text(SCRIPT.replace('= "unet",', '= "unte",'))
    done = python(tmp_path / "experiment.py", PYTHONPATH=str(REPOSITORY))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "experiment.py: model is 'unte' in the script; it must be one of unet, fcn\n"


def test_flags_set_parameters_and_name_the_run(experiment, capsys):
    flags = ["--dataset", "shapes", "--epochs", "5", "--lr", "0.01", "--no-pretrained", "--model", "fcn", "--seed", "2"]
    cli(experiment, flags)
    name = "experiment-shapes-epochs5-lr0.01-no_pretrained-fcn-s2"
    assert capsys.readouterr().out.splitlines()[-1] == f"shapes 5 0.01 False fcn 224 2 {name}"


def test_without_flags_the_defaults_stand_and_a_size_may_be_height_by_width(experiment, capsys):
    cli(experiment, [])
    cli(experiment, ["--size", "120x160"])
    *_, first, second = [line for line in capsys.readouterr().out.splitlines() if line.startswith("voc")]
    assert first == "voc2007 60 0.001 True unet 224 0 experiment"
    assert second == "voc2007 60 0.001 True unet (120, 160) 0 experiment-size120x160"
    assert [read_size(text) for text in ("96", "96x96", "120x160")] == [96, 96, (120, 160)]


def test_help_shows_the_docstring_the_comments_and_the_defaults(experiment, capsys):
    with pytest.raises(SystemExit):
        cli(experiment, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "What is this?" in text
    assert "--dataset TEXT which data, 100 % of it [voc2007]" in text
    assert "--pretrained, --no-pretrained start from ImageNet [yes]" in text
    assert "--model unet|fcn which network [unet]" in text
    assert "--size PIXELS|HEIGHTxWIDTH which side [224]" in text
    assert "--precision auto|bf16|fp16|fp32" in text
    assert "[48x64]" in text


@pytest.mark.parametrize("flags", ["--epoch 5", "--epochs many", "--model segnet", "--size 12x"])
def test_mistyped_flags_end_in_one_sentence_and_status_2(flags, experiment, capsys):
    with pytest.raises(SystemExit) as exit:
        cli(experiment, flags.split())
    usage, error = capsys.readouterr().err.splitlines()
    assert exit.value.code == 2 and usage.endswith("experiment.py [--flag VALUE ...]")
    assert "error: " in error and (flags != "--epoch 5" or error.endswith("--epoch is no flag; did you mean --epochs?"))


def test_a_parameter_without_a_type_has_that_of_its_default(tmp_path, monkeypatch, capsys):
    (tmp_path / "untyped.py").write_text(SCRIPT.replace("lr: float = 1e-3,", "lr = 1e-3,"))
    monkeypatch.syspath_prepend(tmp_path)
    main = importlib.import_module("untyped").main
    cli(main, ["--lr", "1"])
    assert "voc2007 60 1.0 True" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli(main, ["--help"])
    assert " rate [0.001]" in capsys.readouterr().out


BAD_INPUT = {
    "--epochs 0": "--epochs 0 must be at least 1",
    "--lr nan": "--lr nan must be at least 0",
    "--batch-size 0": "--batch-size 0 must be at least 1",
    "--image-size 0": "--image-size 0 is not possible; a side has 1 to",
    "--dataset vok": "--dataset vok is not known",
    "--dataset voc2007 --data-root nowhere": "python download.py voc2007",
    "--device cuda:99": "--device cuda:99 is not available",
    "--name a/b": "do not begin it with a dot, or use any of",
    "--resume": "nothing to resume: runs/train-shapes-image_size32 has no last.pt",
}


@pytest.mark.parametrize("flags", BAD_INPUT)
def test_bad_input_ends_in_one_sentence_before_anything_is_trained(flags, few_shapes, capsys):
    with pytest.raises(SystemExit) as exit:
        cli(train.main, ["--dataset", "shapes", "--image-size", "32", *flags.split()])
    assert BAD_INPUT[flags] in str(exit.value) and "\n" not in str(exit.value)
    assert "train loss" not in capsys.readouterr().out


def test_what_cannot_be_written_is_found_before_training():
    Path("runs").write_text("a file where a folder should be")
    with pytest.raises(SystemExit, match="cannot write runs/"):
        cli(train.main, ["--dataset", "vok", "--name", "x"])


def test_a_script_does_not_wait_for_what_its_end_needs():
    code = "import sys, train; print({'torch', 'matplotlib', 'torchvision', 'triton'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=REPOSITORY, text=True).strip() == "{'torch'}"
