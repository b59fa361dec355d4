"""EncoderUNet: an ImageNet encoder whose maps are handed across to a decoder, as in the U-Net.

After Ronneberger, Fischer & Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015, with an
encoder that has seen ImageNet.
"""

import torch
from torch import nn

from common.models.encoder_decoder import EncoderDecoder
from common.models.encoders import ImageEncoder
from common.models.layers import double_conv, upsample

WIDTHS = (256, 128, 64, 32)  # of the decoder at 1/16, 1/8, 1/4, 1/2


class UNetDecoder(nn.Module):
    """Four steps up: double the map, append the encoder's map of that size, learn to combine the two; a classifier.

    Args:
        encoder: whose five maps it gets.
        num_classes: number of output channels.
    """

    def __init__(self, encoder: ImageEncoder, num_classes: int):
        super().__init__()
        self.anchor = encoder.anchor
        *skips, x = encoder.channels
        self.combine = nn.ModuleList()
        for skip, width in zip(reversed(skips), WIDTHS, strict=True):
            self.combine.append(double_conv(x + skip, width))
            x = width
        self.classifier = nn.Conv2d(x, num_classes, kernel_size=1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Map five maps at strides 2, 4, 8, 16, 32 to logits (B, num_classes, H, W) at stride 2."""
        *skips, x = features
        for combine, skip in zip(self.combine, reversed(skips), strict=True):
            x = combine(torch.cat([upsample(x, anchor=self.anchor), skip], dim=1))
        return self.classifier(x)


class EncoderUNet(EncoderDecoder):
    """The encoder's maps of every size reach the decoder; `EncoderDecoder` tells the arguments."""

    decoder_class = UNetDecoder
