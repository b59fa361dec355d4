"""ResNetV2FCN: a ResNet v2, a pyramid of coarser maps on top of it, and a decoder that sees all of them at once.

Source: Atienza, Advanced Deep Learning with Keras, 2nd edition, 2020, chapter 12.
"""

import torch
from torch import nn
from torch.nn import functional as F

from common.models.layers import FastConvTranspose2d, Normalize, init_convs, pad_to_multiple
from common.models.resnet_v2 import ResNetV2, bn_relu
from common.system.errors import UserError


class ResNetV2FCN(nn.Module):
    """Fully convolutional network on ResNet v2; 15,236,964 parameters at 4 classes, 11,105,892 with four levels.

    The book only divides images by 255. This network also normalises them, as all networks here do; the first
    convolution and BatchNorm can undo it.

    Args:
        num_classes: number of output channels.
        depth: of the backbone, 9 n + 2.
        levels: number of maps in the pyramid; 5 means strides 4, 8, ... 64 (the book's n_layers is one less).

    Raises:
        UserError: `levels` is not from 2 to 7.
    """

    def __init__(self, num_classes: int, depth: int = 56, levels: int = 5):
        super().__init__()
        if not 2 <= levels <= 7:
            raise UserError(f"--levels {levels} must be from 2 to 7; the coarsest map has the stride 2 ** (levels + 1)")
        self.arguments = {"num_classes": num_classes, "depth": depth, "levels": levels}
        self.normalize = Normalize()
        self.backbone = ResNetV2(depth)
        width = self.backbone.channels
        self.shrink = nn.ModuleList([nn.AvgPool2d(2)])  # 1/8
        self.score = nn.ModuleList([conv3x3(width, 256)])
        for _ in range(levels - 2):  # 1/16, 1/32, 1/64
            self.shrink.append(conv3x3(width, 512, stride=2))
            width = 512
            self.score.append(conv3x3(width, 256))
        self.decoder = nn.Sequential(
            up_bn_relu(256 * levels, 256),  # 1/2
            up_bn_relu(256, 256),  # full size
            nn.Conv2d(256, num_classes, kernel_size=1),
        )
        init_convs(self, nn.init.kaiming_normal_)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 3, H, W) in [0, 1], of any size, to logits (B, num_classes, H, W)."""
        height, width = images.shape[-2:]
        x = self.backbone(pad_to_multiple(self.normalize(images), 4))
        fine = x.shape[-2:]
        # Only the pyramid needs the larger multiple. The backbone and the decoder cost most and see no padding.
        x = pad_to_multiple(x, 2 ** len(self.shrink))
        padded, pyramid = x.shape[-2:], [x]
        for shrink, score in zip(self.shrink, self.score, strict=True):
            x = shrink(x)
            pyramid.append(F.interpolate(score(x), padded, mode="bilinear", align_corners=False))
        x = torch.cat(pyramid, dim=1)[..., : fine[0], : fine[1]]
        return self.decoder(x)[..., :height, :width]


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Return a 3x3 convolution (with bias, as in the book), batch normalisation and ReLU."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride, padding=1), *bn_relu(out_channels))


def up_bn_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return a block that doubles the map: transposed 3x3 convolution, batch normalisation, ReLU."""
    deconv = FastConvTranspose2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(deconv, *bn_relu(out_channels))
