"""FCN8s: class scores at three strides, summed from coarse to fine.

Long, Shelhamer & Darrell, Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, on any encoder. It differs
from the paper in two ways. It leaves out fc6 and fc7 (VGG-16's classifier as convolutions), which other encoders do not
have. It trains all three scores at once from random weights; the paper adds them one by one, starting from zero.
"""

import torch
from torch import nn

from common.models.encoder_decoder import EncoderDecoder
from common.models.encoders import ImageEncoder
from common.models.layers import conv_transpose2x


class ScoreSum(nn.Module):
    """Score the maps at strides 32, 16 and 8 by 1x1 convolutions; upsample the coarse scores and add the finer ones.

    Args:
        encoder: provides five maps at strides 2, 4, 8, 16 and 32.
        num_classes: number of output channels.
    """

    def __init__(self, encoder: ImageEncoder, num_classes: int):
        super().__init__()
        *_, at_8, at_16, at_32 = encoder.channels
        self.score_32 = nn.Conv2d(at_32, num_classes, kernel_size=1)
        self.score_16 = nn.Conv2d(at_16, num_classes, kernel_size=1)
        self.score_8 = nn.Conv2d(at_8, num_classes, kernel_size=1)
        self.up_32, self.up_16 = (learned_upsample2x(num_classes, encoder.anchor) for _ in range(2))

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Map five maps at strides 2, 4, 8, 16, 32 to logits (B, num_classes, H, W) at stride 8."""
        *_, at_8, at_16, at_32 = features
        scores = self.up_32(self.score_32(at_32)) + self.score_16(at_16)
        return self.up_16(scores) + self.score_8(at_8)


class FCN8s(EncoderDecoder):
    """Coarse scores recognise objects, fine scores locate them; see `EncoderDecoder` for the arguments."""

    decoder_class = ScoreSum


def learned_upsample2x(channels: int, anchor: float) -> nn.Sequential:
    """Return a transposed convolution to twice the size, initialised to interpolate each channel bilinearly."""
    up = nn.Sequential(*conv_transpose2x(channels, channels, anchor, bias=False))
    ramp = torch.tensor([0.25, 0.75, 0.75, 0.25] if anchor == 0.5 else [0.5, 1, 0.5])
    nn.init.zeros_(up[0].weight)
    with torch.no_grad():
        up[0].weight[range(channels), range(channels)] = torch.outer(ramp, ramp)
    return up
