"""MobileNet v1 against its plain description: TensorFlow's padding, BatchNorm with eps 1e-3, ReLU6."""

import torch
from torch.nn import functional as F

from common.models.encoders import build_encoder

STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2)  # of dw1, dw2, ...
MAPS = ("pw1", "pw3", "pw5", "pw11", "pw12")  # after which the encoder's maps are taken


def same(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """Pad (B, C, H, W) as TensorFlow's SAME does: evenly, and by the odd pixel right and below."""
    sides = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides)


def layer(state: dict, x: torch.Tensor, conv: str, norm: str, stride: int = 1, groups: int = 1) -> torch.Tensor:
    """Draw the numbers of a convolution and its BatchNorm into `state`; return the map (B, C, H, W) that they make.

    The variances are about as large as eps, and the activations as large as 6: else neither would matter.
    """
    weight = state[f"{conv}.weight"].normal_()
    maps = F.conv2d(same(x, weight.shape[-1], stride), weight, stride=stride, groups=groups)
    scale = 0.03 / maps.std()
    weight *= scale
    maps *= scale
    mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
    mean.copy_(maps.mean((0, 2, 3)) + 0.01 * torch.randn(len(mean)))
    variance.uniform_(0.5e-3, 2e-3)
    factor, bias = state[f"{norm}.weight"].uniform_(3, 6), state[f"{norm}.bias"].uniform_(-1, 2)
    return F.batch_norm(maps, mean, variance, factor, bias, eps=1e-3).clamp(0, 6)


def test_mobilenet_v1_computes_what_its_description_says():
    torch.manual_seed(0)
    encoder = build_encoder("mobilenet_v1", pretrained=False).eval()
    state, images, expected = encoder.network.state_dict(), torch.rand(2, 3, 64, 96), {}
    x = layer(state, 2 * images - 1, "conv1", "bn1", stride=2)
    for number, stride in enumerate(STRIDES, start=1):
        x = layer(state, x, f"dw{number}", f"dw{number}_bn", stride, groups=x.shape[1])
        x = expected[f"pw{number}"] = layer(state, x, f"pw{number}", f"pw{number}_bn")
        assert 0.005 < (x == 6).float().mean() < 0.5 and (x == 0).float().mean() < 0.8
    with torch.no_grad():
        maps = encoder(images)
    for name, found in zip(MAPS, maps, strict=True):
        torch.testing.assert_close(found, expected[name], rtol=0, atol=1e-3, msg=lambda text, n=name: f"{n}: {text}")
