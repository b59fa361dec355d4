"""DeepLabV3Plus: DeepLabV3's view from near and far, and a finer map handed across for the outlines.

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
    """ASPP of the coarsest map, enlarged to 1/4, beside 48 channels of the encoder's own map of that size.

    Args:
        encoder: whose maps at 1/4 and at its coarsest it gets.
        num_classes: number of output channels.
        dilations: see `ASPP`.
    """

    def __init__(self, encoder: ImageEncoder, num_classes: int, dilations: tuple[int, int, int] = (6, 12, 18)):
        super().__init__()
        self.anchor = encoder.anchor
        self.aspp = ASPP(encoder.channels[-1], dilations, conv=separable_conv)
        self.project = conv_bn_relu(encoder.channels[1], 48, kernel_size=1)  # few, so that they do not outweigh ASPP's
        self.refine = nn.Sequential(separable_conv(256 + 48, 256), separable_conv(256, 256))
        self.classifier = nn.Conv2d(256, num_classes, kernel_size=1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Map the encoder's maps to logits (B, num_classes, H, W) at stride 4."""
        fine, coarse = self.project(features[1]), self.aspp(features[-1])
        coarse = upsample(coarse, fine.shape[-1] // coarse.shape[-1], self.anchor)
        return self.classifier(self.refine(torch.cat([coarse, fine], dim=1)))


class DeepLabV3Plus(EncoderDecoder):
    """A dilated encoder, at stride 16 as the paper trains, ASPP and a skip; `EncoderDecoder` tells the arguments.

    In training, batches must have two images or more: batch normalisation of a mean over all places needs two values.

    ASPP's `dilations` are an argument more, as `DeepLabV3` has it.
    """

    decoder_class = ASPPSkipDecoder
    output_strides = (16, 8, 32)
