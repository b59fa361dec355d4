"""PSPNet: each pixel is classified with the help of the mean features of larger regions around it.

Zhao, Shi, Qi, Wang & Jia, Pyramid Scene Parsing Network, CVPR 2017, on any encoder, without the auxiliary loss.
"""

import torch
from torch import nn
from torch.nn import functional as F

from common.models.encoder_decoder import EncoderDecoder
from common.models.encoders import ImageEncoder
from common.models.layers import conv_bn_relu


class PyramidPooling(nn.Module):
    """Append a map's means over 1x1, 2x2, 3x3 and 6x6 regions, each projected to a quarter of the channels.

    Args:
        channels: of the input; a multiple of 4. The result has twice as many.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(regions), conv_bn_relu(channels, channels // 4, kernel_size=1))
            for regions in (1, 2, 3, 6)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, channels, H, W) to (B, 2 channels, H, W)."""
        size = x.shape[-2:]
        means = [F.interpolate(level(x), size, mode="bilinear", align_corners=False) for level in self.levels]
        return torch.cat([x, *means], dim=1)


class PyramidDecoder(nn.Module):
    """Pyramid pooling of the coarsest map, a convolution to a quarter of its channels, and a 1x1 classifier.

    Args:
        encoder: provides its coarsest map.
        num_classes: number of output channels.
    """

    def __init__(self, encoder: ImageEncoder, num_classes: int):
        super().__init__()
        channels = encoder.channels[-1]
        self.pyramid = PyramidPooling(channels)
        self.head = nn.Sequential(conv_bn_relu(2 * channels, channels // 4), nn.Dropout2d(0.1))
        self.classifier = nn.Conv2d(channels // 4, num_classes, kernel_size=1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Map the encoder's maps to logits (B, num_classes, H, W) at the coarsest stride."""
        return self.classifier(self.head(self.pyramid(features[-1])))


class PSPNet(EncoderDecoder):
    """A dilated encoder (stride 8 by default, as in the paper) and pyramid pooling.

    Training needs batches of two or more images: BatchNorm after the global mean needs two values per channel.
    See `EncoderDecoder` for the arguments.
    """

    decoder_class = PyramidDecoder
    output_strides = (8, 16, 32)
