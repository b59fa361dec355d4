"""What makes training fast changes no score: each speed-up beside the plain way, with the tolerance it is held to."""

import ctypes
import os
import resource
import subprocess
import sys

import pytest
import torch
from conftest import REPOSITORY
from torch import nn
from torch.nn import functional as F

import train
from common.datasets import VOID
from common.losses import CrossEntropy
from common.models.layers import FastConvTranspose2d
from common.run import Run
from common.system.device import keep_freed_memory


def plain_loss(self, logits, target):
    """Cross-entropy as torch has it for maps."""
    return F.cross_entropy(logits, target, self.weight, ignore_index=VOID)


def contiguous(self, *arguments, memory_format=None, **options):
    """`Module.to` that keeps torch's usual layout."""
    return TO(self, *arguments, **options)


TO = nn.Module.to
ADAMW = torch.optim.AdamW
# Of each: what takes its place, and how much the loss may differ, as a part of it, and the mIoU.
PLAIN = {
    "loss by rows": (CrossEntropy, "forward", plain_loss, 1e-3, 0.005),
    "bias apart": (FastConvTranspose2d, "forward", nn.ConvTranspose2d.forward, 1e-3, 0.005),
    "channels-last": (nn.Module, "to", contiguous, 1e-3, 0.005),
    "fused AdamW": (torch.optim, "AdamW", lambda *a, fused, **options: ADAMW(*a, **options), 1e-3, 0.005),
}


def trained(voc_root, precision="fp32"):
    """Return the test's result of six steps of training."""
    run = Run(device="cpu", precision=precision, data_root=voc_root)
    return train.main("voc2007", image_size=32, epochs=2, batch_size=4, run=run)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
def test_a_short_training_scores_the_same_without(name, voc_root, monkeypatch):
    owner, attribute, plain, loss_tolerance, miou_tolerance = PLAIN[name]
    ours = trained(voc_root)
    monkeypatch.setattr(owner, attribute, plain)
    theirs = trained(voc_root)
    assert ours["loss"] != theirs["loss"]  # it was another way
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=loss_tolerance)
    assert ours["scores"]["mIoU"] == pytest.approx(theirs["scores"]["mIoU"], abs=miou_tolerance)


def test_bf16_changes_the_loss_by_a_fiftieth_at_most(voc_root):
    fp32, bf16 = trained(voc_root), trained(voc_root, "bf16")
    assert fp32["loss"] != bf16["loss"] == pytest.approx(fp32["loss"], rel=0.02)
    assert bf16["scores"]["mIoU"] == pytest.approx(fp32["scores"]["mIoU"], abs=0.02)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_and_its_gradient_are_torch_s(layout, weighted):
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 5, (3, 6, 8), generator=generator)
    target[0, :2] = VOID
    weight = torch.rand(5, generator=generator) if weighted else None
    results = []
    for loss in (CrossEntropy(weight), nn.CrossEntropyLoss(weight, ignore_index=VOID)):
        logits = torch.randn(3, 5, 6, 8, generator=torch.Generator().manual_seed(1)).to(memory_format=layout)
        mean = loss(logits.requires_grad_(), target)
        mean.backward()
        results.append((mean.detach(), logits.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_transposed_convolution_and_its_gradients_are_torch_s(dtype, tolerance, bias):
    results = []
    for kind in (FastConvTranspose2d, nn.ConvTranspose2d):
        torch.manual_seed(0)
        layer = kind(6, 5, kernel_size=3, stride=2, padding=1, output_padding=1, bias=bias)
        layer.to(memory_format=torch.channels_last)
        images = torch.randn(2, 6, 7, 9).to(memory_format=torch.channels_last).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = layer(images)
        assert out.dtype == dtype and out.is_contiguous(memory_format=torch.channels_last)
        out.float().square().mean().backward()
        results.append([out.detach(), images.grad, *(parameter.grad for parameter in layer.parameters())])
    assert len(results[0]) == len(results[1]) == 3 + bias
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * theirs.abs().max().item())


def test_of_equal_logits_the_first_class_is_predicted():
    logits = torch.tensor([1.0, 2.0, 2.0, 0.0])[None, :, None, None].expand(1, 4, 40, 40)
    for dtype in (torch.float32, torch.bfloat16):
        for layout in (torch.channels_last, torch.contiguous_format):
            given = logits.to(dtype).contiguous(memory_format=layout)
            assert (given.max(1).indices == 1).all() and (given.argmax(1) == 1).all()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None) if os.name == "posix" else None, "mallopt"), reason="needs glibc")
def test_freed_memory_is_used_again_without_a_page_fault():
    keep_freed_memory()
    faults = []
    for _ in range(40):  # the first ones find their place
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2**24)  # 64 MiB in 16,384 pages, freed at once
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert sorted(faults[-10:])[5] < 1000


FIRST_BATCH = """
import sys, resource
sys.path.insert(0, {root!r})
from pathlib import Path

def seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

if {bare}:
    import torch, torchvision
    print(seconds())
    sys.exit()
import train
from common.loader import Loader
from common.run import Run

class Timed(Loader):
    def __iter__(self):
        for batch in super().__iter__():
            print(seconds())
            sys.exit()

train.Loader = Timed
train.main(image_size=32, run=Run(device="cpu", data_root=Path({data!r})))
"""


@pytest.mark.slow
def test_the_first_batch_comes_within_two_seconds_of_the_bare_imports(voc_root):
    """In processor time, and from a warm cache."""

    def seconds(bare: bool) -> float:
        code = FIRST_BATCH.format(root=str(REPOSITORY), data=str(voc_root), bare=bare)
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return float(result.stdout.splitlines()[-1])

    seconds(bare=False)  # fills the cache
    assert seconds(bare=False) - seconds(bare=True) < 2
