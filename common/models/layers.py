"""Layers that several models use."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Normalize(nn.Module):
    """Compute (image - mean) / std per channel, inside the model: training, prediction and export cannot differ.

    Args:
        mean, std: per channel, for images (B, 3, H, W) in [0, 1]; ImageNet's by default.
    """

    def __init__(self, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the normalised images, same shape."""
        return (images - self.mean) / self.std


def pad_to_multiple(x: torch.Tensor, stride: int) -> torch.Tensor:
    """Pad `x` (B, C, H, W) with zeros, right and below, until `stride` divides its height and width."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % stride, 0, -height % stride))


def init_convs(model: nn.Module, init: Callable) -> None:
    """Initialise all convolution weights in `model` by `init`, a function of torch.nn.init, and the biases to 0.

    xavier_uniform_: Glorot & Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS
    2010. kaiming_normal_, for ReLU: He et al., Delving Deep into Rectifiers, ICCV 2015.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            init(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def reset_momentum(model: nn.Module) -> nn.Module:
    """Give all BatchNorm layers of `model` torch's usual momentum of 0.1, in place; return the model.

    torchvision's MobileNetV3 has 0.01: in a short training, its running averages would stay near their start.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return model


def upsample(x: torch.Tensor, factor: int = 2, anchor: float = 0.5) -> torch.Tensor:
    """Interpolate `x` (B, C, H, W) bilinearly to (B, C, factor H, factor W); repeat the values at the border.

    Args:
        anchor: where an old value lies in its `factor` x `factor` cell of new values: 0 top left, 0.5 centre, 1 bottom
            right, as in `ImageEncoder`.
    """
    if anchor == 0.5:
        return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    between = [factor * (size - 1) + 1 for size in x.shape[2:]]  # from the first old value to the last
    before = int(anchor * (factor - 1))
    after = factor - 1 - before
    with torch.autocast(x.device.type, enabled=False):  # keep the dtype of `x`
        x = F.interpolate(x, between, mode="bilinear", align_corners=True)
        return F.pad(x, (before, after, before, after), mode="replicate")


class FastConvTranspose2d(nn.ConvTranspose2d):
    """torch's transposed convolution without `output_size`; it adds the bias in a separate step, which is faster.

    On a CPU, torch convolves with oneDNN. With a bias, oneDNN needs up to twice as long for the gradients in
    channels-last. The result is the same except for one more rounding in bf16.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H', W'); see nn.ConvTranspose2d for H' and W'."""
        shape = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        x = F.conv_transpose2d(x, self.weight, None, *shape)
        return x if self.bias is None else x.add_(self.bias.to(x.dtype)[:, None, None])


def conv_transpose2x(in_channels: int, out_channels: int, anchor: float, bias: bool = True) -> list[nn.Module]:
    """Return the layers of a transposed convolution to twice the size; see `upsample` for `anchor`."""
    if anchor == 0.5:
        return [FastConvTranspose2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1, bias=bias)]
    if anchor == 0:
        return [FastConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=bias)]
    crop = nn.ZeroPad2d((0, -1, 0, -1))  # cut off the surplus right column and lower row
    return [FastConvTranspose2d(in_channels, out_channels, kernel_size=3, stride=2, bias=bias), crop]


def conv_bn(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return convolution and batch normalisation; the map keeps its size, or shrinks by `stride`."""
    padding = dilation * (kernel_size // 2)
    # Without bias: batch normalisation would subtract it again.
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return convolution, batch normalisation and ReLU; the map keeps its size, or shrinks by `stride`."""
    return conv_bn(in_channels, out_channels, kernel_size, stride, dilation, groups).append(nn.ReLU(inplace=True))


class DilatedDepthwiseConv2d(nn.Conv2d):
    """Depthwise 3x3 convolution with dilation; the map keeps its size.

    On a CPU it leaves channels-last for the convolution. oneDNN, which torch uses there, has no fast kernel for it: a
    training step takes two to four times as long as in torch's default layout.
    """

    def __init__(self, channels: int, dilation: int):
        super().__init__(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, channels, H, W) to the same shape."""
        if x.device.type != "cpu":
            return super().forward(x)
        return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)


def separable_conv(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Sequential:
    """Return a depthwise 3x3 and a 1x1 convolution, each with BatchNorm and ReLU; the map keeps its size.

    Chollet, Xception: Deep Learning with Depthwise Separable Convolutions, CVPR 2017.
    """
    depthwise = conv_bn_relu(in_channels, in_channels, groups=in_channels)
    if dilation > 1:
        depthwise[0] = DilatedDepthwiseConv2d(in_channels, dilation)
    return nn.Sequential(depthwise, conv_bn_relu(in_channels, out_channels, kernel_size=1))


def double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return two 3x3 convolutions, each with batch normalisation and ReLU; the map keeps its size."""
    return nn.Sequential(conv_bn_relu(in_channels, out_channels), conv_bn_relu(out_channels, out_channels))
