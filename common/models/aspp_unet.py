"""ASPPUNet: DeepLabV3's ASPP for a wide view and the U-Net's skips for sharp outlines, on any encoder.

Atrous spatial pyramid pooling: Chen, Papandreou, Schroff & Adam, Rethinking Atrous Convolution for Semantic Image
Segmentation, arXiv 2017, with the separable convolutions of `DeepLabV3Plus`. Skips: Ronneberger, Fischer & Brox, U-Net:
Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015.
"""

import torch
from torch import nn

from common.models.deeplabv3 import ASPP
from common.models.encoder_decoder import EncoderDecoder
from common.models.encoders import ImageEncoder
from common.models.layers import double_conv, separable_conv, upsample

WIDTHS = (128, 64, 32)  # the decoder's channels at 1/8, 1/4, 1/2


class ASPPUNetDecoder(nn.Module):
    """ASPP on the coarsest map, then three steps: upsample, append the encoder's map of that size, convolve twice.

    Args:
        encoder: provides maps at strides 2, 4, 8 and its coarsest stride.
        num_classes: number of output channels.
        dilations: see `ASPP`.
    """

    def __init__(self, encoder: ImageEncoder, num_classes: int, dilations: tuple[int, int, int] = (6, 12, 18)):
        super().__init__()
        self.anchor = encoder.anchor
        self.aspp = ASPP(encoder.channels[-1], dilations, conv=separable_conv)
        self.combine = nn.ModuleList()
        x = 256
        for skip, width in zip(encoder.channels[2::-1], WIDTHS, strict=True):
            self.combine.append(double_conv(x + skip, width))
            x = width
        self.classifier = nn.Conv2d(x, num_classes, kernel_size=1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Map the encoder's maps to logits (B, num_classes, H, W) at stride 2."""
        x = self.aspp(features[-1])
        for combine, skip in zip(self.combine, features[2::-1], strict=True):
            x = upsample(x, skip.shape[-1] // x.shape[-1], self.anchor)
            x = combine(torch.cat([x, skip], dim=1))
        return self.classifier(x)


class ASPPUNet(EncoderDecoder):
    """A dilated encoder (stride 16 by default), ASPP and three skips.

    Training needs batches of two or more images: BatchNorm after the global mean needs two values per channel.
    See `EncoderDecoder` for the arguments, and `ASPP` for `dilations`.
    """

    decoder_class = ASPPUNetDecoder
    output_strides = (16, 8, 32)
