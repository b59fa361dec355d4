"""ADEUNet: the U-Net of the ADE20K project, regularised by dropout instead of batch normalisation.

After Ronneberger, Fischer & Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015. UNet
(common/models/unet.py) has batch normalisation, no dropout, and a 2x2 up-convolution without ReLU instead.
"""

from itertools import pairwise

import torch
from torch import nn

from common.models.layers import FastConvTranspose2d, Normalize, init_convs, pad_to_multiple

WIDTHS = (64, 128, 256, 512, 1024)


class ADEUNet(nn.Module):
    """Four steps down, four up, with dropout after each; 34,523,095 parameters at 151 classes.

    Args:
        num_classes: number of output channels.
        dropout: probability that training sets a value to 0, after each pooling and each concatenation.
    """

    def __init__(self, num_classes: int, dropout: float = 0.3):
        super().__init__()
        self.arguments = {"num_classes": num_classes, "dropout": dropout}
        self.normalize = Normalize()
        self.down = nn.ModuleList([two_convs(3, WIDTHS[0])])  # full size
        self.up_convs, self.combine = nn.ModuleList(), nn.ModuleList()
        for fine, coarse in pairwise(WIDTHS):
            self.down.append(two_convs(fine, coarse))  # 1/2, 1/4, 1/8, 1/16
            up = FastConvTranspose2d(coarse, fine, kernel_size=3, stride=2, padding=1, output_padding=1)
            self.up_convs.append(nn.Sequential(up, nn.ReLU(inplace=True)))
            self.combine.append(two_convs(2 * fine, fine))  # the upsampled map and the skip
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(WIDTHS[0], num_classes, kernel_size=1)
        init_convs(self, nn.init.kaiming_normal_)  # or the signal would fade in 23 layers without normalisation

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 3, H, W) in [0, 1], of any size, to logits (B, num_classes, H, W)."""
        height, width = images.shape[-2:]
        x = self.down[0](pad_to_multiple(self.normalize(images), 16))
        skips = []
        for down in self.down[1:]:
            skips.append(x)
            x = down(self.dropout(self.pool(x)))
        for up_conv, combine in zip(reversed(self.up_convs), reversed(self.combine), strict=True):
            x = combine(self.dropout(torch.cat([skips.pop(), up_conv(x)], dim=1)))
        return self.classifier(x)[..., :height, :width]


def two_convs(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return two 3x3 convolutions, each with ReLU; the map keeps its size."""
    first = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
    second = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
    return nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))
