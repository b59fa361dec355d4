"""Small pieces that several models use."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Normalize(nn.Module):
    """(image - mean) / std per channel. Part of the model, so that training, prediction and export cannot disagree.

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
    """Draw all convolution weights in `model` by `init`, one of torch.nn.init's, and set their biases to 0.

    xavier_uniform_: Glorot & Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS
    2010. kaiming_normal_, for ReLU: He et al., Delving Deep into Rectifiers, ICCV 2015.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            init(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def upsample(x: torch.Tensor, factor: int = 2, anchor: float = 0.5) -> torch.Tensor:
    """Interpolate `x` (B, C, H, W) bilinearly to (B, C, factor H, factor W); beyond the outermost values, repeat them.

    Args:
        anchor: where an old value lies among its `factor` x `factor` new ones: first (0), last (1) or in the middle
            (0.5), as in `ImageEncoder`.
    """
    if anchor == 0.5:
        return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    between = [factor * (size - 1) + 1 for size in x.shape[2:]]  # from the first old value to the last
    before = int(anchor * (factor - 1))
    after = factor - 1 - before
    with torch.autocast(x.device.type, enabled=False):  # in the precision that `x` has
        x = F.interpolate(x, between, mode="bilinear", align_corners=True)
        return F.pad(x, (before, after, before, after), mode="replicate")


class FastConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution as torch's, for one size of output, with the bias added apart.

    Given the bias, oneDNN, with which torch convolves on a CPU, takes up to twice as long for the gradients in
    channels-last. The sum is that of torch's, but for one more rounding in bf16.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, ...), of the size that torch's documentation gives."""
        shape = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        x = F.conv_transpose2d(x, self.weight, None, *shape)
        return x if self.bias is None else x.add_(self.bias.to(x.dtype)[:, None, None])


def conv_transpose2x(in_channels: int, out_channels: int, anchor: float, bias: bool = True) -> list[nn.Module]:
    """Return the layers of a transposed convolution to twice the size; `anchor` as in `upsample`."""
    if anchor == 0.5:
        return [FastConvTranspose2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1, bias=bias)]
    if anchor == 0:
        return [FastConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=bias)]
    crop = nn.ZeroPad2d((0, -1, 0, -1))  # what lies beyond the right and lower edge
    return [FastConvTranspose2d(in_channels, out_channels, kernel_size=3, stride=2, bias=bias), crop]


def conv_bn(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution and batch normalisation; the map keeps its size, or shrinks by `stride`."""
    padding = dilation * (kernel_size // 2)
    # Without bias: batch normalisation would subtract it again.
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU; the map keeps its size, or shrinks by `stride`."""
    return conv_bn(in_channels, out_channels, kernel_size, stride, dilation, groups).append(nn.ReLU(inplace=True))


class DilatedDepthwiseConv2d(nn.Conv2d):
    """Depthwise 3x3 convolution with holes, as torch's; the map keeps its size.

    oneDNN, with which torch convolves on a CPU, has no fast kernels for it in channels-last: its step takes two to four
    times as long as in torch's usual layout.
    """

    def __init__(self, channels: int, dilation: int):
        super().__init__(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, channels, H, W) to the same shape."""
        if x.device.type != "cpu":
            return super().forward(x)
        return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)


def separable_conv(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Sequential:
    """Depthwise 3x3 convolution, then a 1x1, each with batch normalisation and ReLU; the map keeps its size.

    Chollet, Xception: Deep Learning with Depthwise Separable Convolutions, CVPR 2017.
    """
    depthwise = conv_bn_relu(in_channels, in_channels, groups=in_channels)
    if dilation > 1:
        depthwise[0] = DilatedDepthwiseConv2d(in_channels, dilation)
    return nn.Sequential(depthwise, conv_bn_relu(in_channels, out_channels, kernel_size=1))


def double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with a batch normalisation of its own, and ReLU; the map keeps its size."""
    return nn.Sequential(conv_bn_relu(in_channels, out_channels), conv_bn_relu(out_channels, out_channels))
