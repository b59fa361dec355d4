"""The benchmarks, tiny: what they print is what they promise, and the numbers are possible ones."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, one_sentence, python, started, write_folder

from benchmarks import epoch, gpu, leave_out, limit, loader, metrics
from benchmarks.reference import count_classes, count_pixels, mean_iou, reference_loader
from common.cli import cli
from common.datasets import VOID
from common.models import BasicFCN
from common.run import Run
from common.system.errors import UserError


def check_table(text: str, rates: dict[str, float], plain: list[str]) -> None:
    """Check that the table in `text` shows `rates`, the best of `plain` first, with their ratios to it."""
    rows = re.findall(r"^  (\S.*?) {2,}[\d.e+]+ +([\d.]+) +[\d.]+$", text, re.MULTILINE)
    best = max(rates[name] for name in plain)
    assert next(iter(rates.values())) == best and min(rates.values()) > 0
    assert rows == [(name, f"{rate / best:.2f}") for name, rate in rates.items()]


@pytest.mark.slow
def test_epoch_compares_our_loop_with_the_plain_ones(voc_root, capsys):
    settings = {"image_size": 32, "images": 4, "batch_size": 2, "workers": 1, "repeats": 1}
    rates = epoch.main(**settings, run=Run(device="cpu", data_root=voc_root))
    plain = ["best plain loop, 1 workers", "best plain loop, 0 workers", "tutorial loop, fp32"]
    text = capsys.readouterr().out
    check_table(text, rates, plain)
    assert "basic_fcn, 4 + 4 images at 32" in text and rates.keys() == {*plain, "this project"}


def test_loader_compares_our_first_and_later_epochs_with_plain_loaders(voc_root, capsys):
    settings = {"image_size": 32, "images": 4, "batch_size": 2, "workers": 0, "repeats": 1}
    rates = loader.main(**settings, augment="all", run=Run(device="cpu", data_root=voc_root))
    text = capsys.readouterr().out
    plain = ["plain loader, 0 workers", "plain loader, new workers each epoch"]
    check_table(text, rates, plain)
    assert "4 images at 32" in text
    assert rates.keys() == {*plain, "this project, first epoch", "this project, later epochs"}


@pytest.mark.slow
def test_metrics_come_to_the_same_score_by_every_way(capsys):
    rates, scores = metrics.main(image_size=40, batch_size=3, batches=2, repeats=1, run=Run(device="cpu"))
    plain = ["np.bincount", "class by class with NumPy"]
    check_table(capsys.readouterr().out, rates, plain)
    assert {*plain, "this project"} == rates.keys() == scores.keys()
    ours = scores["this project"]
    assert 0.3 < ours < 0.6  # half of the patches are right
    assert all(score == pytest.approx(ours, abs=1e-6) for score in scores.values())


@pytest.mark.slow
def test_limit_finds_a_possible_part_of_what_the_machine_can_do():
    rows = limit.main(model="basic_fcn", image_size=32, batch_size=2, repeats=1, run=Run(device="cpu"))
    row = rows["basic_fcn"]
    assert row["parameters"] == 5_493_645 and min(row.values()) > 0
    assert row["part"] < 1 and row["share"] < 1
    assert row["share"] == pytest.approx(row["images/s"] / row["possible"], rel=1e-3)


def test_the_operations_and_bytes_of_a_step_are_counted():
    x, weight = torch.rand(2, 3, 8, 8), torch.rand(4, 3, 1, 1, requires_grad=True)
    with limit.Operations() as work:
        y = torch.conv2d(x, weight).permute(0, 2, 3, 1)  # a view moves nothing
        y.sum().backward()  # the gradient is one number, expanded
    pixels, float32 = 2 * 8 * 8, 4
    maps, weights = pixels * (3 + 4) * float32, 4 * 3 * float32
    assert work.counts[0] == (2 * pixels * 3 * 4, maps + weights)
    assert work.counts[1] == (0, pixels * 4 * float32 + float32)
    assert work.counts[-1] == (2 * pixels * 3 * 4, float32 + pixels * 3 * float32 + 2 * weights)

    x.requires_grad_()
    with limit.Operations() as work:  # each of two groups maps 4 of 8 channels to 4
        torch.conv2d(x.repeat(1, 3, 1, 1)[:, :8], torch.rand(8, 4, 1, 1, requires_grad=True), groups=2).sum().backward()
    flops = [flops for flops, _ in work.counts if flops]
    assert flops == [2 * pixels * 2 * 4 * 4, 2 * 2 * pixels * 2 * 4 * 4]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_nothing_is_measured_and_a_sentence_says_so():
    with pytest.raises(SystemExit, match=r"^benchmarks\.gpu: this installation of torch finds no GPU; [^\n]*$"):
        cli(gpu.main, [])
    assert not list(Path().iterdir())


@pytest.mark.slow
def test_every_part_of_gpu_but_sync_is_tried_on_a_processor(voc_root):
    flags = "--device cpu --precision fp32 --out gpu.json --datasets voc2007 --training-epochs 3 --models basic_fcn"
    flags = [*flags.split(), "--image-size", 32, "--batch-size", 2, "--repeats", 1, "--precisions", "fp16 fp32"]
    flags += ["--data-root", voc_root]
    late = one_sentence(python("benchmarks/gpu.py", *flags, "--parts", "training", "--minutes", 0))
    assert late == "benchmarks.gpu: failed: training, all else"
    late = json.loads(Path("gpu.json").read_text())["training"]
    assert late == {"all else": "failed: stopped after 0 minutes"}
    done = python("benchmarks/gpu.py", *flags, timeout=900)
    assert done.returncode == 0, done.stderr
    result, lines = json.loads(Path("gpu.json").read_text()), done.stdout.splitlines()
    assert result["tests"] == {"pytest -m gpu": "passed"} and "resuming runs/gpu/last.pt after epoch 1" in lines
    assert result["sync"] == {"training": "not measured: there is no GPU"}
    assert len(result["loading"]) == 4 and all(row["images/s"] > 0 for row in result["loading"].values())
    unbroken, resumed = result["training"]["voc2007"], result["resume"]["voc2007, killed in epoch 2"]
    assert unbroken["mIoU"] == resumed["mIoU"] and unbroken["epochs"] == resumed["epochs"] == 3
    loops = ["fp16", "fp32", gpu.BEST, gpu.TUTORIAL]
    speeds = {loop: row["images/s"] for loop, row in result["speed"]["basic_fcn"].items()}
    assert list(speeds) == loops and min(speeds.values()) > 0
    ratios = [f"{speeds['fp16'] / speeds[loop]:.2f}" for loop in loops[2:]]
    cells = lines[-1].strip("| ").split(" | ")
    assert cells == ["basic_fcn", *(f"{rate:.4g} (0.0)" for rate in speeds.values()), *ratios]


def test_the_reference_reads_the_same_images_as_we_do(voc_root):
    run = started(data_root=voc_root)
    batches = list(reference_loader("val", (24, 40), 4, "none", 0, run))
    assert [len(images) for images, _ in batches] == [4, 2]
    for augment in ("flip", "all"):
        images, masks = next(iter(reference_loader("train", 32, 10, augment, 0, run)))
        assert images.dtype == torch.float32 and masks.dtype == torch.int64
        assert images.shape == (10, 3, 32, 32) and masks.shape == (10, 1, 32, 32)
        assert images.min() >= 0 and 0.5 < images.max() <= 1
        assert set(masks.unique().tolist()) <= {*range(21), VOID}


def test_the_reference_counts_each_class_without_void():
    prediction, target = np.array([[0, 1, 1, 2]]), np.array([[0, 1, 2, VOID]])
    for count in (count_classes, count_pixels):
        assert count(prediction, target, 3).tolist() == [[1, 1, 0], [1, 2, 1]]
    assert mean_iou(np.array([[1, 1, 0], [1, 2, 0]])) == 0.75


@pytest.mark.slow
@pytest.mark.parametrize(("best", "precision"), [(True, torch.bfloat16), (False, torch.float32)])
def test_the_best_plain_loop_has_bf16_and_channels_last_and_the_tutorial_s_has_not(voc_root, best, precision):
    run, seen = started(precision="bf16", data_root=voc_root), []
    loaders = [reference_loader(split, 32, 2, "none", 0, run) for split in ("train", "val")]
    model = BasicFCN(21)
    model.register_forward_hook(lambda model, images, logits: seen.append((images[0], logits)))
    before = [parameter.clone() for parameter in model.parameters()]
    miou = epoch.reference_epoch(model, torch.optim.AdamW(model.parameters()), *loaders, run, best)
    assert 0 <= miou < 0.5
    assert any((old != new).any() for old, new in zip(before, model.parameters(), strict=True))
    assert {logits.dtype for _, logits in seen} == {precision}
    assert {images.is_contiguous(memory_format=torch.channels_last) for images, _ in seen} == {best}


@pytest.mark.parametrize("change", leave_out.CHANGES)
def test_what_is_left_out_of_train_best_is_in_it(change):
    text = (REPOSITORY / "train_best.py").read_text(encoding="utf-8")
    there = leave_out.changed(text, change)
    compile(there, change, "exec")
    assert (there == text) == (change == "as_it_is")
    with pytest.raises(UserError, match="has it 2 times"):
        leave_out.changed(f"{text}\n{text}", "adamw")


@pytest.mark.slow
def test_trainings_without_a_part_are_tabled_beside_the_whole_and_are_not_run_twice(tmp_path, capsys):
    photos = write_folder(tmp_path / "photos", 12)
    flags = "--image-size 32 --epochs 1 --no-pretrained"
    for _ in range(2):
        leave_out.main(str(photos), flags, changes="as_it_is no_colours", seeds="0 1")
        assert re.search(r"^\| no colours \| 0\.\d{3} ± 0\.\d{3} \| [+-]0", capsys.readouterr().out, re.MULTILINE)
    assert len([*Path("runs").glob("*/test.json")]) == 4
    with pytest.raises(UserError, match=r"--classes sky: .* has class 0,class 1"):
        leave_out.main(str(photos), flags, changes="as_it_is", seeds="0", classes="sky")
