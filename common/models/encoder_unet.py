"""EncoderUNet: a U-Net with an ImageNet encoder.

After Ronneberger, Fischer & Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015.
"""

import torch
from torch import nn

from common.models.encoder_decoder import EncoderDecoder
from common.models.encoders import ImageEncoder
from common.models.layers import double_conv, upsample

WIDTHS = (256, 128, 64, 32)  # the decoder's channels at 1/16, 1/8, 1/4, 1/2


class UNetDecoder(nn.Module):
    """Four steps up, then a 1x1 classifier. A step upsamples, appends the encoder's map and convolves twice.

    Args:
        encoder: provides five maps at strides 2, 4, 8, 16 and 32.
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
    """Every feature map of the encoder reaches the decoder; see `EncoderDecoder` for the arguments."""

    decoder_class = UNetDecoder
