"""FCNVGG16: the FCN-8s of the ADE20K project, on VGG-16.

Long, Shelhamer & Darrell, Fully Convolutional Networks for Semantic Segmentation, CVPR 2015. As in the ADE20K project,
the two wide layers after the last pooling are left out, and a ReLU stands before each sum of two scores.
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from common.models.encoders import build_encoder
from common.models.layers import FastConvTranspose2d, init_convs


class FCNVGG16(nn.Module):
    """Class scores at strides 32, 16 and 8, summed; 22,269,973 parameters at 151 classes, all of them trained.

    Args:
        num_classes: number of output channels.
        pretrained: start the encoder from ImageNet weights.
        encoder_weights: a local file with these weights, or a folder of such files.

    Raises:
        UserError: see `build_encoder`.
    """

    def __init__(self, num_classes: int, pretrained: bool = True, encoder_weights: Path | str | None = None):
        super().__init__()
        # A checkpoint brings the weights, so a network that is loaded from one downloads none.
        self.arguments = {"num_classes": num_classes, "pretrained": False}
        self.encoder = build_encoder("vgg16", pretrained, encoder_weights)
        *_, pool3, pool4, pool5 = self.encoder.channels
        self.up5 = nn.ConvTranspose2d(pool5, num_classes, kernel_size=4, stride=2, padding=1, bias=False)
        self.score4 = nn.Conv2d(pool4, num_classes, kernel_size=1)
        self.up4 = nn.ConvTranspose2d(num_classes, num_classes, kernel_size=4, stride=2, padding=1, bias=False)
        self.score3 = nn.Conv2d(pool3, num_classes, kernel_size=1)
        self.up3 = FastConvTranspose2d(num_classes, num_classes, kernel_size=16, stride=8, padding=4)
        for layer in (self.up5, self.score4, self.up4, self.score3, self.up3):
            init_convs(layer, nn.init.xavier_uniform_)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 3, H, W) in [0, 1], of any size, to logits (B, num_classes, H, W)."""
        height, width = images.shape[-2:]
        *_, pool3, pool4, pool5 = self.encoder(images)
        x = F.relu(self.up5(pool5)) + self.score4(pool4)  # 1/16
        x = F.relu(self.up4(x)) + self.score3(pool3)  # 1/8
        return self.up3(x)[..., :height, :width]
