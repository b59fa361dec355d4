"""ResNetV2: residual units whose normalisation and activation come before the convolution, not after it.

He, Zhang, Ren & Sun, Identity Mappings in Deep Residual Networks, ECCV 2016, in the variant for small images, which
keeps full size for its first third.
"""

import torch
from torch import nn

# out channels, channels inside, stride: of the three stages
STAGES = ((64, 16, 1), (128, 64, 2), (256, 128, 2))


class ResNetV2(nn.Module):
    """A 3x3 convolution, then three stages of (depth - 2) / 9 units; to 1/4, with 256 channels.

    Every convolution has a bias.

    Args:
        depth: layers of convolution: 9 n + 2, such as 56.
    """

    channels = STAGES[-1][0]

    def __init__(self, depth: int = 56):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, kernel_size=3, padding=1), *bn_relu(16))
        units, channels = [], 16
        for out_channels, inside, stride in STAGES:
            for number in range((depth - 2) // 9):
                preact = bool(units)  # the stem has just normalised what the very first unit gets
                step = stride if number == 0 else 1
                units.append(PreActBottleneck(channels, inside, out_channels, step, preact))
                channels = out_channels
        self.units = nn.Sequential(*units)
        self.end = bn_relu(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map normalised images (B, 3, H, W) to (B, 256, H / 4, W / 4); 4 should divide both sides."""
        return self.end(self.units(self.stem(x)))


class PreActBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution, each after BatchNorm and ReLU, added to what they were given.

    Where the map changes its size or channels, a 1x1 convolution does that to what is given. The first 1x1 convolution
    has the stride.

    Args:
        channels, inside, out_channels: of the input, between the convolutions, of the output.
        stride: by which the map shrinks.
        preact: BatchNorm and ReLU before the first convolution.
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
    """Batch normalisation, then ReLU.

    `eps` is Keras's. torch's, a hundredth of it, makes much of the tiny variances in a map of a few pixels.
    """
    return nn.Sequential(nn.BatchNorm2d(channels, eps=1e-3), nn.ReLU(inplace=True))
