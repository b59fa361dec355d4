"""The benchmarks, tiny: what they print is what they promise, and the numbers are possible ones."""

import math
import re
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from conftest import needs_shared, python, started

from benchmarks import epoch, limit, loader, metrics
from benchmarks.measure import in_turn, peak_memory, seconds
from benchmarks.reference import count_classes, mean_iou, reference_loader
from benchmarks.voc_part import write_scenes
from common.datasets import VOID
from common.errors import UserError
from common.models import MODELS
from common.run import Run


def table(text: str) -> dict[str, tuple[float, float]]:
    """Return rate and ratio of each row of the table in `text`."""
    rows = re.findall(r"^  (\S.*?) {2,}([\d.e+]+) +([\d.]+)$", text, re.MULTILINE)
    return {name: (float(rate), float(ratio)) for name, rate, ratio in rows}


def check_table(text: str, rates: dict[str, float]) -> None:
    """Check that the table in `text` shows `rates`, possible ones, and their ratios to the first."""
    shown, first = table(text), next(iter(rates.values()))
    assert shown.keys() == rates.keys()
    for name, rate in rates.items():
        assert 0 < rate < math.inf
        assert shown[name][0] == pytest.approx(rate, rel=1e-3)
        assert shown[name][1] == pytest.approx(rate / first, abs=0.01)


OWN = """
from .size import KERNEL
from torch import nn

class Own(nn.Conv2d):
    def __init__(self, classes, channels=3):
        super().__init__(channels, classes, KERNEL)
"""


def write_package(folder: Path) -> Path:
    """Write a package with a network that needs its neighbour; return the network's file."""
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "size.py").write_text("KERNEL = 1")
    (folder / "own.py").write_text(OWN)
    return folder / "own.py"


def test_epoch_compares_our_loop_the_plain_one_and_an_external_network(tmp_path, capsys):
    own = f"{write_package(tmp_path / 'nets')}:Own"
    rates = epoch.main(external=own, image_size=32, images=4, batch_size=2, workers=0, repeats=1, run=Run(device="cpu"))
    text = capsys.readouterr().out
    check_table(text, rates)
    assert list(rates) == ["plain reference loop, fp32", "this project", own]
    assert "basic_fcn, 4 + 4 images at 32, batch 2, " in text and f"torch {torch.__version__}" in text
    assert "generated images" in text
    assert list(Path(".cache").iterdir()) == []


def test_an_external_network_is_called_with_the_number_of_classes_or_as_written(tmp_path):
    file = write_package(tmp_path / "nets2")
    assert epoch.load_external(f"{file}:Own", 7).out_channels == 7
    assert epoch.load_external(f"{file}:Own(5, channels=1)", 7).weight.shape == (5, 1, 1, 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nowhere.py:Net", "nowhere.py is no file"),
        ("net.py", "must be FILE:CLASS"),
        ("net.py:Net", "cannot be built"),
        ("net.py:KERNEL(2)", "cannot be built"),
        ("net.py:dict()", "is no torch.nn.Module, but a dict"),
    ],
)
def test_an_external_network_that_cannot_be_had_is_explained(text, reason):
    Path("net.py").write_text("KERNEL = 1")
    with pytest.raises(UserError, match=reason):
        epoch.load_external(text, 3)


def test_epoch_and_loader_measure_the_users_images_where_there_are_some(voc_root, capsys):
    settings = {"image_size": 32, "images": 4, "batch_size": 2, "workers": 0, "repeats": 1}
    rates = loader.main(**settings, augment="all", clock="cpu", run=Run(device="cpu", data_root=voc_root))
    text = capsys.readouterr().out
    check_table(text, rates)
    assert f"images of {voc_root.resolve()}" in text
    assert list(rates) == ["plain reference, every epoch", "this project, first epoch", "this project, later epochs"]
    share = re.search(r"a batch takes [\d.]+ ms, the training step [\d.]+ ms: ([\d.]+)% of it", text)
    assert 0 < float(share[1]) < 100
    assert (voc_root / "VOCdevkit/VOC2007/JPEGImages").is_dir()  # only the links to them are gone


def test_metrics_come_to_the_same_score_by_every_way(capsys):
    rates, scores = metrics.main(image_size=40, batch_size=3, batches=2, repeats=1, run=Run(device="cpu"))
    check_table(capsys.readouterr().out, rates)
    assert {"class by class with NumPy", "this project", "scikit-learn"} <= rates.keys() == scores.keys()
    ours = scores["this project"]
    assert 0.3 < ours < 0.6  # half of the patches are right
    assert all(score == pytest.approx(ours, abs=1e-6) for score in scores.values())


@pytest.mark.slow
def test_limit_finds_a_possible_part_of_the_ceiling_and_the_memory_of_a_model(capsys):
    ceilings, rows = limit.main(model="basic_fcn", image_size=32, batch_size=2, repeats=1, run=Run(device="cpu"))
    text = capsys.readouterr().out
    assert list(ceilings) == ["fp32 matrix product", "bf16 matrix product"] and min(ceilings.values()) > 1e8
    row = rows["basic_fcn"]
    assert row["parameters"] == 5_493_645
    assert 0 < row["rate"] < row["ceiling"]
    assert 100 < row["peak"] < 4096
    line = next(line for line in text.splitlines() if line.startswith("basic_fcn"))
    assert len(line.split()) == 8 and line.split()[6].endswith("%")


def test_flops_of_the_step_are_three_times_those_of_the_network():
    images = torch.rand(2, 3, 32, 32)
    for name in ("basic_fcn", "unet"):
        model = MODELS[name](num_classes=21)
        forward = limit.flops_of(lambda model=model: model(images))
        both = limit.flops_of(lambda model=model: model(images).sum().backward())
        assert 2.8 * forward < both <= 3 * forward  # the first layer needs no gradient of the images


def test_the_reference_reads_the_same_images_as_we_do(voc_root):
    loader = reference_loader(voc_root, "val", (24, 40), 4, "none", 0, started())
    batches = list(loader)
    assert [len(images) for images, _ in batches] == [4, 2]
    for augment in ("flip", "all"):
        images, masks = next(iter(reference_loader(voc_root, "train", 32, 10, augment, 0, started())))
        assert images.dtype == torch.float32 and masks.dtype == torch.int64
        assert images.shape == (10, 3, 32, 32) and masks.shape == (10, 1, 32, 32)
        assert images.min() >= 0 and 0.5 < images.max() <= 1
        assert set(masks.unique().tolist()) <= {*range(21), VOID}


def test_the_reference_counts_each_class_without_void():
    prediction, target = np.array([[0, 1, 1, 2]]), np.array([[0, 1, 2, VOID]])
    assert count_classes(prediction, target, 3).tolist() == [[1, 1, 0], [1, 2, 1]]
    assert mean_iou(np.array([[1, 1, 0], [1, 2, 0]])) == 0.75


def test_generated_images_are_like_voc_s(tmp_path):
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    write_scenes(tmp_path, {"train": 3})
    sizes = [path.stat().st_size for path in (tmp_path / "JPEGImages").iterdir()]
    assert len(sizes) == 3 and 60_000 < sum(sizes) / 3 < 150_000


def test_candidates_take_turns_and_the_first_time_is_not_in_the_median():
    calls, waits = [], iter([0.05, 0.01, 0.01])

    def wait() -> None:
        calls.append("a")
        time.sleep(next(waits))

    first, median = in_turn({"a": wait, "b": lambda: calls.append("b")}, 2, "wall", started())["a"]
    assert calls == ["a", "b"] * 3
    assert first >= 0.05 > median >= 0.01


def test_processor_time_does_not_pass_while_we_sleep():
    run = started()
    start = seconds("cpu", run), seconds("wall", run)
    time.sleep(0.3)
    assert seconds("cpu", run) - start[0] < 0.2 < 0.3 <= seconds("wall", run) - start[1]


def test_peak_memory_is_at_least_what_is_held_now():
    held = np.ones(2**27, np.uint8)
    now = psutil.Process().memory_info().rss
    assert peak_memory(started()) >= now / 2**20 - 1 > held.nbytes / 2**20


@needs_shared
@pytest.mark.slow
def test_a_benchmark_runs_from_the_command_line():
    result = python("benchmarks/epoch.py", "--image-size", "64", "--images", "8", "--repeats", "1", "--batch-size", "4")
    assert result.returncode == 0, result.stderr
    assert len(table(result.stdout)) == 2
