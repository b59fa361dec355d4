import subprocess
import sys

import pytest
from conftest import REPOSITORY, one_sentence, python

import train
from common.cli import cli, read_size

SCRIPT = '''
"""What is this?"""
import sys
sys.path.insert(0, {root!r})
from typing import Literal
from common.cli import cli
from common.datasets import Size
from common.run import Run

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
    run = run.start(main, locals())
    print(dataset, epochs, lr, pretrained, model, size, run.seed, run.name)

if __name__ == "__main__":
    cli(main)
'''


def script(tmp_path, *flags):
    (tmp_path / "experiment.py").write_text(SCRIPT.format(root=str(REPOSITORY)))
    command = [sys.executable, str(tmp_path / "experiment.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True)


def test_flags_set_parameters_and_name_the_run(tmp_path):
    flags = ["--dataset", "shapes", "--epochs", "5", "--lr", "0.01", "--no-pretrained", "--model", "fcn", "--seed", "2"]
    result = script(tmp_path, *flags)
    name = "experiment-shapes-epochs5-lr0.01-no_pretrained-fcn-s2"
    assert result.stdout.splitlines()[-1] == f"shapes 5 0.01 False fcn 224 2 {name}", result.stderr
    assert script(tmp_path).stdout.splitlines()[-1] == "voc2007 60 0.001 True unet 224 0 experiment"


def test_a_size_is_height_by_width_or_one_number(tmp_path):
    assert [read_size(text) for text in ("96", "96x96", "120x160")] == [96, 96, (120, 160)]
    result = script(tmp_path, "--size", "120x160")
    expected = "voc2007 60 0.001 True unet (120, 160) 0 experiment-size120x160"
    assert result.stdout.splitlines()[-1] == expected, result.stderr


def test_help_shows_the_docstring_the_comments_and_the_defaults(tmp_path):
    text = " ".join(script(tmp_path, "--help").stdout.split())
    assert "What is this?" in text
    assert "--dataset NAME which data, 100 % of it [voc2007]" in text
    assert "--pretrained, --no-pretrained start from ImageNet [yes]" in text
    assert "--model unet|fcn which network [unet]" in text
    assert "--size PIXELS|HEIGHTxWIDTH which side [224]" in text
    assert "--precision auto|bf16|fp32" in text
    assert "[48x64]" in text


@pytest.mark.slow
def test_mistyped_flags_end_in_one_sentence_and_status_2(tmp_path):
    for flags in (["--epoch", "5"], ["--epochs", "many"], ["--model", "segnet"], ["--size", "12x"]):
        result = script(tmp_path, *flags)
        assert result.returncode == 2
        assert "error:" in one_sentence(result)


BAD_INPUT = {
    "--epochs 0": "--epochs 0 must be at least 1",
    "--epochs -1": "--epochs is -1",
    "--lr nan": "--lr is nan",
    "--seed -3": "--seed is -3",
    "--image-size 99999": "a side has 1 to 16384 pixels",
    "--name ..": "may not begin with a dot",
    "--batch-size 0": "--batch-size 0 must be at least 1",
    "--image-size 0": "--image-size 0 is not possible; a side has 1 to",
    "--image-size 32x0": "--image-size 32x0 is not possible",
    "--dataset vok": "--dataset vok is not known",
    "--dataset voc2007 --data-root nowhere": "python download.py voc2007",
    "--device gpu": "--device gpu is no device",
    "--device cuda:99": "--device cuda:99 is not available",
    "--name a/b": "may not begin with a dot or hold any of",
    "--resume": "nothing to resume: last_train-shapes-image_size32.pt is not in",
}


@pytest.mark.parametrize("flags", BAD_INPUT)
def test_bad_input_ends_in_one_sentence_before_anything_is_trained(flags, few_shapes, capsys):
    with pytest.raises(SystemExit) as exit:
        cli(train.main, ["--dataset", "shapes", "--image-size", "32", *flags.split()])
    assert BAD_INPUT[flags] in str(exit.value) and "\n" not in str(exit.value)
    assert "train loss" not in capsys.readouterr().out


def test_an_error_is_one_sentence_on_stderr_and_status_1():
    result = python("train.py", "--dataset", "vok")
    assert result.returncode == 1
    assert one_sentence(result).startswith("train.py: --dataset vok is not known; choose one of voc2007, voc2012, ")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "cwd" / "runs").write_text("a file where a folder should be")
    with pytest.raises(SystemExit, match="cannot write runs/"):
        cli(train.main, ["--dataset", "shapes"])


@pytest.mark.parametrize("name", ["plots", "best_x.pt/in", "last_x.pt/in"])
def test_what_cannot_be_written_is_found_before_training(tmp_path, name):
    path = tmp_path / "cwd" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("in the way")
    with pytest.raises(SystemExit, match=r"cannot write (plots|best_x|last_x)"):
        cli(train.main, ["--dataset", "vok", "--name", "x"])


def test_importing_a_script_does_nothing(tmp_path):
    code = "import train, download, sys; assert 'matplotlib.pyplot' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0 and not result.stdout and not result.stderr
