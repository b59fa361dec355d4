"""DeepLabV3: convolutions with holes look at the same map from near and far.

Chen, Papandreou, Schroff & Adam, Rethinking Atrous Convolution for Semantic Image Segmentation, arXiv 2017, on any
encoder; without the multi-grid, which is about the bottleneck units of its ResNets.
"""

import torch
from torch import nn

from common.models.encoder_decoder import EncoderDecoder
from common.models.layers import conv_bn_relu

RATES = {16: (6, 12, 18), 8: (12, 24, 36), 32: (3, 6, 9)}  # by output stride: the same distances in the image


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, three dilated 3x3, and the whole map's mean, side by side, then combined.

    Args:
        in_channels: of the map.
        rates: dilations of the three.
        out_channels: of each branch, and of the result.
    """

    def __init__(self, in_channels: int, rates: tuple[int, int, int], out_channels: int = 256):
        super().__init__()
        self.branches = nn.ModuleList([conv_bn_relu(in_channels, out_channels, kernel_size=1)])
        self.branches += [conv_bn_relu(in_channels, out_channels, dilation=rate) for rate in rates]
        self.image = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_bn_relu(in_channels, out_channels, kernel_size=1))
        self.combine = conv_bn_relu(5 * out_channels, out_channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        branches = [branch(x) for branch in self.branches]
        return self.combine(torch.cat([*branches, self.image(x).expand_as(branches[0])], dim=1))


class ASPPDecoder(nn.Module):
    """ASPP of the coarsest map and a 1x1 classifier.

    Args:
        channels: of the encoder's coarsest map.
        num_classes: number of output channels.
        rates: see `ASPP`.
    """

    def __init__(self, channels: int, num_classes: int, rates: tuple[int, int, int]):
        super().__init__()
        self.aspp = ASPP(channels, rates)
        self.classifier = nn.Conv2d(256, num_classes, kernel_size=1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Map the encoder's maps to logits (B, num_classes, H, W) at the stride of the coarsest."""
        return self.classifier(self.aspp(features[-1]))


class DeepLabV3(EncoderDecoder):
    """A dilated encoder, at stride 16 as the paper trains, and ASPP; `EncoderDecoder` tells the arguments.

    In training, batches must have two images or more: batch normalisation of a mean over all places needs two values.
    """

    output_strides = tuple(RATES)

    def make_decoder(self, num_classes: int) -> nn.Module:
        """Return the decoder for this encoder."""
        return ASPPDecoder(self.encoder.channels[-1], num_classes, RATES[self.arguments["output_stride"]])
