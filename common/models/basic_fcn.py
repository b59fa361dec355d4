"""BasicFCN: the baseline, five convolutions down and five transposed convolutions up.

In the spirit of Long, Shelhamer & Darrell, Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, without
skips: an object's position must pass through a feature map at stride 32.
"""

import torch
from torch import nn

from common.models.layers import FastConvTranspose2d, Normalize, init_convs, pad_to_multiple


class BasicFCN(nn.Module):
    """Baseline fully convolutional network; 5,493,645 parameters at 21 classes.

    Args:
        num_classes: number of output channels.
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.arguments = {"num_classes": num_classes}
        channels = max(num_classes, 21)  # with few channels, one dead ReLU could lose a class
        self.normalize = Normalize()
        self.encoder = nn.Sequential(
            down(3, 32),  # 1/2
            down(32, 64),  # 1/4
            down(64, 128),  # 1/8
            down(128, 256),  # 1/16
            down(256, 512),  # 1/32
        )
        self.decoder = nn.Sequential(
            up(512, 512),  # 1/16
            up(512, 256),  # 1/8
            up(256, 128),  # 1/4
            up(128, 64),  # 1/2
            up(64, channels),  # full size
        )
        self.classifier = nn.Conv2d(channels, num_classes, kernel_size=1)
        init_convs(self, nn.init.xavier_uniform_)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 3, H, W) in [0, 1], of any size, to logits (B, num_classes, H, W)."""
        height, width = images.shape[-2:]
        x = pad_to_multiple(self.normalize(images), 32)
        logits = self.classifier(self.decoder(self.encoder(x)))
        return logits[..., :height, :width]


def down(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return a block that halves the map: convolution, ReLU, batch normalisation."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1)
    return nn.Sequential(conv, nn.ReLU(inplace=True), nn.BatchNorm2d(out_channels))


def up(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return a block that doubles the map: transposed convolution, ReLU, batch normalisation."""
    deconv = FastConvTranspose2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(deconv, nn.ReLU(inplace=True), nn.BatchNorm2d(out_channels))
