"""SegNet: the decoder puts each value back at the position of the maximum in the encoder's max pooling.

Badrinarayanan, Kendall & Cipolla, SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation,
TPAMI 2017. The paper's encoder is VGG-16: its five poolings give the position of each maximum. Other encoders have no
such poolings. For these, the decoder applies 2x2 max pooling to the encoder's finer map and uses its positions.
"""

import torch
from torch import nn
from torch.nn import functional as F

from common.models.encoder_decoder import EncoderDecoder
from common.models.encoders import ImageEncoder
from common.models.layers import conv_bn_relu


class Unpooling(nn.Module):
    """Each step up puts the values at the positions of the finer map's maxima, zero elsewhere, and convolves.

    The decoder gets only these positions from the finer maps. The U-Net's decoder gets the maps themselves.

    Args:
        encoder: provides all its maps.
        num_classes: number of output channels.
    """

    def __init__(self, encoder: ImageEncoder, num_classes: int):
        super().__init__()
        # On VGG-16 as in the paper: the maps before each pooling, and as many convolutions as the encoder has.
        depths = (3, 3, 3, 2, 2) if encoder.pools else (2, 2, 2, 2)
        encoder.before_pooling()
        self.shift = int(2 * encoder.anchor - 1)
        *finer, coarsest = encoder.channels
        finer.reverse()
        # Values and positions need the same number of channels.
        same = coarsest == finer[0]
        self.project = nn.Identity() if same else conv_bn_relu(coarsest, finer[0], kernel_size=1)
        self.steps = nn.ModuleList()
        for here, after, depth in zip(finer, [*finer[1:], finer[-1]], depths, strict=True):
            # The last convolution of a step changes to the next step's number of channels.
            self.steps.append(nn.Sequential(*[conv_bn_relu(here, here) for _ in range(depth - 1)]))
            self.steps[-1].append(conv_bn_relu(here, after))
        self.steps[-1][-1] = nn.Conv2d(finer[-1], num_classes, kernel_size=3, padding=1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Map feature maps, each half the previous one, to logits (B, num_classes, H, W) of the first map's size."""
        *finer, x = features
        x = self.project(x)
        for i, (step, like) in enumerate(zip(self.steps, reversed(finer), strict=True)):
            # A 2x2 window is half a value off the anchor. Shift every other one, or these offsets add up.
            shift = self.shift * (i % 2 == 0)
            _, places = F.max_pool2d(translate(like, -shift), 2, return_indices=True)
            x = step(translate(F.max_unpool2d(x, places, 2), shift))
        return x


class SegNet(EncoderDecoder):
    """An encoder and a decoder that unpools; see `EncoderDecoder` for the arguments."""

    decoder_class = Unpooling


def translate(x: torch.Tensor, by: int) -> torch.Tensor:
    """Move `x` (B, C, H, W) right and down by `by` values (left and up if negative); fill with zeros."""
    return F.pad(x, (by, -by, by, -by)) if by else x
