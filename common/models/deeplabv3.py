"""DeepLabV3: parallel dilated convolutions look at one feature map at several scales.

Chen, Papandreou, Schroff & Adam, Rethinking Atrous Convolution for Semantic Image Segmentation, arXiv 2017, on any
encoder. The paper's multi-grid is left out: it belongs to the bottleneck units of its ResNets.
"""

from collections.abc import Callable

import torch
from torch import nn

from common.models.encoder_decoder import EncoderDecoder
from common.models.encoders import ImageEncoder
from common.models.layers import conv_bn_relu


def dilations_for(image_size: int | tuple[int, int], output_stride: int = 16) -> tuple[int, int, int]:
    """Return ASPP's three dilations for images of `image_size` (height and width, or one number for both).

    The paper has 6, 12 and 18 at output stride 16, and twice as much at 8: 96, 192 and 288 of its 513 pixels. Smaller
    images get smaller dilations in proportion, rounded to whole cells of the map: 3, 6 and 9 at 224 pixels and stride
    16. With 18 on that 14 x 14 map, eight of a filter's nine weights would read only padding.
    """
    shorter = image_size if isinstance(image_size, int) else min(image_size)
    first = max(1, round(96 * min(1, shorter / 513) / output_stride))
    return first, 2 * first, 3 * first


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: five branches side by side, combined by a 1x1 convolution.

    The branches are a 1x1 convolution, three dilated 3x3 convolutions, and the mean of the whole map.

    Args:
        in_channels: channels of the input.
        dilations: of the three 3x3 convolutions; `dilations_for` scales the paper's to the image size.
        out_channels: channels of each branch and of the result.
        conv: builds the dilated convolutions: `conv_bn_relu` or `separable_conv`.
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
    """ASPP on the coarsest map and a 1x1 classifier.

    Args:
        encoder: provides its coarsest map.
        num_classes: number of output channels.
        dilations: see `ASPP`.
    """

    def __init__(self, encoder: ImageEncoder, num_classes: int, dilations: tuple[int, int, int] = (6, 12, 18)):
        super().__init__()
        self.aspp = ASPP(encoder.channels[-1], dilations)
        self.classifier = nn.Conv2d(256, num_classes, kernel_size=1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Map the encoder's maps to logits (B, num_classes, H, W) at the coarsest stride."""
        return self.classifier(self.aspp(features[-1]))


class DeepLabV3(EncoderDecoder):
    """A dilated encoder (stride 16 by default, as in the paper) and ASPP.

    Training needs batches of two or more images: BatchNorm after the global mean needs two values per channel.
    See `EncoderDecoder` for the arguments, and `ASPP` for `dilations`.
    """

    decoder_class = ASPPDecoder
    output_strides = (16, 8, 32)
