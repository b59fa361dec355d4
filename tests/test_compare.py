"""tools/compare.py: trainings side by side, each of them trained once."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from conftest import write_folder

from common.system.errors import UserError
from tools.compare import main as compare

FLAGS = "--dataset photos --image-size 32 --epochs 2 --fine-tune-epochs 1 --encoder mobilenet_v1 --no-pretrained"
FLAGS += " --batch-size 4 --device cpu --precision fp32"


@pytest.mark.slow
def test_each_combination_and_its_second_part_are_trained_once_and_set_side_by_side(capsys):
    write_folder(Path("photos"))
    compare(Path("train_pets.py"), ["model=fcn8s,segnet", "lr=0.001"], FLAGS)
    names = [f"{model}-0.001{part}" for model in ("fcn8s", "segnet") for part in ("", "-fine_tuned")]
    with Path("runs/compare-train_pets.csv").open() as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert list(rows) == names and Path("plots/compare-train_pets.png").stat().st_size > 10_000
    tests = {name: Path("runs", f"compare-train_pets-{name}", "test.json") for name in names}
    for name, path in tests.items():
        test = json.loads(path.read_text())
        assert rows[name]["mIoU"] == f"{test['scores']['mIoU']:.3f}" and rows[name]["loss"] == f"{test['loss']:.3f}"
    assert f"| {names[3]} | " in capsys.readouterr().out

    times = {name: path.stat().st_mtime_ns for name, path in tests.items()}
    log = Path("runs/compare-train_pets-segnet-0.001.log")
    log.write_text("epoch 1/2")  # as if it had been interrupted after the test of its first part
    shutil.rmtree("runs/compare-train_pets-fcn8s-0.001")
    assert [row["run"] for row in compare(Path("train_pets.py"), ["model=fcn8s,segnet", "lr=0.001"], FLAGS)] == names
    assert all(path.stat().st_mtime_ns > times[name] for name, path in tests.items())
    assert "resuming runs/compare-train_pets-segnet-0.001/last.pt after epoch 2" in log.read_text()

    times = {name: path.stat().st_mtime_ns for name, path in tests.items()}
    with pytest.raises(UserError, match="1 of 2 runs failed"):
        compare(Path("train_pets.py"), ["model=segnet,nonsense", "lr=0.001"], FLAGS)
    assert "error: argument --model: invalid choice" in capsys.readouterr().out
    with pytest.raises(UserError, match="2 of 2 runs failed"):  # not these trainings
        compare(Path("train_pets.py"), ["model=fcn8s,segnet", "weight_decay=0.001"], FLAGS)
    assert "compare-train_pets-segnet-0.001 was trained with --dataset photos" in capsys.readouterr().out
    assert {name: path.stat().st_mtime_ns for name, path in tests.items()} == times


def test_runs_of_another_version_of_the_script_are_not_shown_as_this_one(capsys):
    Path("runs/compare-mine-0.1").mkdir(parents=True)
    Path("runs/compare-mine-0.1/mine.py").write_text('"""Before."""\nloss = 1')
    Path("mine.py").write_text('"""After."""\nloss = 2')
    with pytest.raises(UserError, match="1 of 1 runs failed"):
        compare(Path("mine.py").absolute(), ["lr=0.1"])
    assert "was trained with another version of the script" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["model", "model=", "model=a,,b"])
def test_a_parameter_without_values_is_refused(text):
    with pytest.raises(UserError, match=f"'{text}' gives no values"):
        compare(Path("train.py"), [text])
