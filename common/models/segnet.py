"""SegNet: a decoder that puts each value back where the encoder's pooling took it from.

Badrinarayanan, Kendall & Cipolla, SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation,
TPAMI 2017. The paper's encoder is VGG-16, whose five poolings remember the place of each maximum. Other encoders do not
pool: there, the places are those of a 2x2 maximum pooling of the encoder's map of the size that is to be reached.
"""

import torch
from torch import nn
from torch.nn import functional as F

from common.models.encoder_decoder import EncoderDecoder
from common.models.encoders import ImageEncoder
from common.models.layers import conv_bn_relu


class Unpooling(nn.Module):
    """At each step up: put the values at the places of the finer map's maxima, zero elsewhere; then convolutions.

    Nothing but these places is handed across: that is SegNet's difference to the U-Net.

    Args:
        encoder: whose maps it gets.
        num_classes: number of output channels.
    """

    def __init__(self, encoder: ImageEncoder, num_classes: int):
        super().__init__()
        # Off VGG-16 the paper's own: its maps as they are before pooling, and as many convolutions as it has.
        depths = (3, 3, 3, 2, 2) if encoder.pools else (2, 2, 2, 2)
        encoder.before_pooling()
        self.shift = int(2 * encoder.anchor - 1)
        *finer, coarsest = encoder.channels
        finer.reverse()
        # Values and places must be of the same channels.
        same = coarsest == finer[0]
        self.project = nn.Identity() if same else conv_bn_relu(coarsest, finer[0], kernel_size=1)
        self.steps = nn.ModuleList()
        for here, after, depth in zip(finer, [*finer[1:], finer[-1]], depths, strict=True):
            # The last convolution of a step makes the channels of the next one.
            self.steps.append(nn.Sequential(*[conv_bn_relu(here, here) for _ in range(depth - 1)]))
            self.steps[-1].append(conv_bn_relu(here, after))
        self.steps[-1][-1] = nn.Conv2d(finer[-1], num_classes, kernel_size=3, padding=1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Map maps, each half the one before, to logits (B, num_classes, H, W) of the first one's size."""
        *finer, x = features
        x = self.project(x)
        for i, (step, like) in enumerate(zip(self.steps, reversed(finer), strict=True)):
            # A 2x2 window lies half a value beside the anchor: every other one to the other side, or that adds up.
            shift = self.shift * (i % 2 == 0)
            _, places = F.max_pool2d(moved(like, -shift), 2, return_indices=True)
            x = step(moved(F.max_unpool2d(x, places, 2), shift))
        return x


class SegNet(EncoderDecoder):
    """An encoder whose maxima's places guide the way up; `EncoderDecoder` tells the arguments."""

    decoder_class = Unpooling


def moved(x: torch.Tensor, by: int) -> torch.Tensor:
    """Move `x` (B, C, H, W) right and down by so many values, or left and up; zeros come in."""
    return F.pad(x, (by, -by, by, -by)) if by else x
