"""DeepLabV3: convolutions with holes look at the same map from near and far.

Chen, Papandreou, Schroff & Adam, Rethinking Atrous Convolution for Semantic Image Segmentation, arXiv 2017, on any
encoder; without the multi-grid, which is about the bottleneck units of its ResNets.
"""

from collections.abc import Callable

import torch
from torch import nn

from common.models.encoder_decoder import EncoderDecoder
from common.models.encoders import ImageEncoder
from common.models.layers import conv_bn_relu


def dilations_for(image_size: int | tuple[int, int], output_stride: int = 16) -> tuple[int, int, int]:
    """Return ASPP's three dilations for images of that height and width, or one number for both.

    The paper's are 6, 12 and 18 at output stride 16, twice that at 8: 96, 192 and 288 pixels of its 513. In smaller
    images they are shorter in proportion, rounded to whole places of the map: at 224 pixels and stride 16, with a map
    of 14 x 14, they are 3, 6 and 9. With 18, eight of a filter's nine weights would meet nothing but padding.
    """
    shorter = image_size if isinstance(image_size, int) else min(image_size)
    first = max(1, round(96 * min(1, shorter / 513) / output_stride))
    return first, 2 * first, 3 * first


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, three dilated 3x3, and the whole map's mean, side by side, then combined.

    Args:
        in_channels: of the map.
        dilations: of the three.
        out_channels: of each branch, and of the result.
        conv: builds the dilated ones, `conv_bn_relu` or `separable_conv`.
    """

    def __init__(
        self,
        in_channels: int,
        dilations: tuple[int, int, int],
        out_channels: int = 256,
        conv: Callable[..., nn.Module] = conv_bn_relu,
    ):
        super().__init__()
        self.branches = nn.ModuleList([conv_bn_relu(in_channels, out_channels, kernel_size=1)])
        self.branches += [conv(in_channels, out_channels, dilation=d) for d in dilations]
        self.image = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_bn_relu(in_channels, out_channels, kernel_size=1))
        self.combine = conv_bn_relu(5 * out_channels, out_channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        branches = [branch(x) for branch in self.branches]
        return self.combine(torch.cat([*branches, self.image(x).expand_as(branches[0])], dim=1))


class ASPPDecoder(nn.Module):
    """ASPP of the coarsest map and a 1x1 classifier.

    Args:
        encoder: whose coarsest map it gets.
        num_classes: number of output channels.
        dilations: see `ASPP`.
    """

    def __init__(self, encoder: ImageEncoder, num_classes: int, dilations: tuple[int, int, int] = (6, 12, 18)):
        super().__init__()
        self.aspp = ASPP(encoder.channels[-1], dilations)
        self.classifier = nn.Conv2d(256, num_classes, kernel_size=1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Map the encoder's maps to logits (B, num_classes, H, W) at the stride of the coarsest."""
        return self.classifier(self.aspp(features[-1]))


class DeepLabV3(EncoderDecoder):
    """A dilated encoder, at stride 16 as the paper trains, and ASPP; `EncoderDecoder` tells the arguments.

    In training, batches must have two images or more: batch normalisation of a mean over all places needs two values.

    ASPP's `dilations` are an argument more; the paper's are for 513 pixels at stride 16, `dilations_for` tells others.
    """

    decoder_class = ASPPDecoder
    output_strides = (16, 8, 32)
