"""DeepLabV3Plus: DeepLabV3, and a skip from a finer feature map for sharp outlines.

Chen, Zhu, Papandreou, Schroff & Adam, Encoder-Decoder with Atrous Separable Convolution for Semantic Image
Segmentation, ECCV 2018, on any encoder.
"""

import torch
from torch import nn

from common.models.deeplabv3 import ASPP
from common.models.encoder_decoder import EncoderDecoder
from common.models.encoders import ImageEncoder
from common.models.layers import conv_bn_relu, separable_conv, upsample


class ASPPSkipDecoder(nn.Module):
    """ASPP on the coarsest map, upsampled to stride 4 and joined with 48 channels of the encoder's map there.

    Args:
        encoder: provides maps at stride 4 and its coarsest stride.
        num_classes: number of output channels.
        dilations: see `ASPP`.
    """

    def __init__(self, encoder: ImageEncoder, num_classes: int, dilations: tuple[int, int, int] = (6, 12, 18)):
        super().__init__()
        self.anchor = encoder.anchor
        self.aspp = ASPP(encoder.channels[-1], dilations, conv=separable_conv)
        self.project = conv_bn_relu(encoder.channels[1], 48, kernel_size=1)  # few: ASPP's 256 must dominate
        self.refine = nn.Sequential(separable_conv(256 + 48, 256), separable_conv(256, 256))
        self.classifier = nn.Conv2d(256, num_classes, kernel_size=1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Map the encoder's maps to logits (B, num_classes, H, W) at stride 4."""
        fine, coarse = self.project(features[1]), self.aspp(features[-1])
        coarse = upsample(coarse, fine.shape[-1] // coarse.shape[-1], self.anchor)
        return self.classifier(self.refine(torch.cat([coarse, fine], dim=1)))


class DeepLabV3Plus(EncoderDecoder):
    """A dilated encoder (stride 16 by default, as in the paper), ASPP and a skip.

    Training needs batches of two or more images: BatchNorm after the global mean needs two values per channel.
    See `EncoderDecoder` for the arguments, and `ASPP` for `dilations`.
    """

    decoder_class = ASPPSkipDecoder
    output_strides = (16, 8, 32)
