"""ResNetV2: a residual network with normalisation and activation before each convolution, not after it.

He, Zhang, Ren & Sun, Identity Mappings in Deep Residual Networks, ECCV 2016, in the variant for small images: the first
stage keeps the full size.
"""

import torch
from torch import nn

# Output channels, inner channels and stride of the three stages.
STAGES = ((64, 16, 1), (128, 64, 2), (256, 128, 2))


class ResNetV2(nn.Module):
    """A 3x3 convolution, then three stages of (depth - 2) / 9 units each; 256 channels at stride 4.

    Every convolution has a bias.

    Args:
        depth: number of convolutions, 9 n + 2, such as 56.
    """

    channels = STAGES[-1][0]

    def __init__(self, depth: int = 56):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, kernel_size=3, padding=1), *bn_relu(16))
        units, channels = [], 16
        for out_channels, inside, stride in STAGES:
            for number in range((depth - 2) // 9):
                preact = bool(units)  # the stem has already normalised the first unit's input
                step = stride if number == 0 else 1
                units.append(PreActBottleneck(channels, inside, out_channels, step, preact))
                channels = out_channels
        self.units = nn.Sequential(*units)
        self.end = bn_relu(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map normalised images (B, 3, H, W) to (B, 256, H / 4, W / 4); H and W should be multiples of 4."""
        return self.end(self.units(self.stem(x)))


class PreActBottleneck(nn.Module):
    """Residual unit: a 1x1, a 3x3 and a 1x1 convolution, each after BatchNorm and ReLU; the input is added at the end.

    If the size or the channels change, a 1x1 convolution in the shortcut changes them too.

    Args:
        channels, inside, out_channels: of the input, between the convolutions, of the output.
        stride: of the first 1x1 convolution.
        preact: put BatchNorm and ReLU before the first convolution.
    """

    def __init__(self, channels: int, inside: int, out_channels: int, stride: int = 1, preact: bool = True):
        super().__init__()
        self.convs = nn.Sequential(
            bn_relu(channels) if preact else nn.Identity(),
            nn.Conv2d(channels, inside, kernel_size=1, stride=stride),
            bn_relu(inside),
            nn.Conv2d(inside, inside, kernel_size=3, padding=1),
            bn_relu(inside),
            nn.Conv2d(inside, out_channels, kernel_size=1),
        )
        same = stride == 1 and channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels, out_channels, kernel_size=1, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        return self.shortcut(x) + self.convs(x)


def bn_relu(channels: int) -> nn.Sequential:
    """Return batch normalisation and ReLU.

    `eps` is that of Keras. torch's is a hundredth of it and amplifies the tiny variances of a map of a few pixels.
    """
    return nn.Sequential(nn.BatchNorm2d(channels, eps=1e-3), nn.ReLU(inplace=True))
