"""What makes training fast changes no score: each speed-up beside the plain way, with the tolerance it is held to."""

import pytest
import torch
from torch import nn

import train
from common.models.layers import FastConvTranspose2d
from common.run import Run


def trained(voc_root, precision="fp32"):
    """Return the test's result of six steps of training."""
    run = Run(device="cpu", precision=precision, data_root=voc_root)
    return train.main("voc2007", image_size=32, epochs=2, batch_size=4, run=run)


def test_bf16_changes_the_loss_by_a_fiftieth_at_most(voc_root, without_pictures):
    fp32, bf16 = trained(voc_root), trained(voc_root, "bf16")
    assert fp32["loss"] != bf16["loss"] == pytest.approx(fp32["loss"], rel=0.02)
    assert bf16["scores"]["mIoU"] == pytest.approx(fp32["scores"]["mIoU"], abs=0.02)


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
