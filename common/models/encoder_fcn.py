"""EncoderFCN: an ImageNet encoder and four transposed convolutions.

In the spirit of Long, Shelhamer & Darrell, Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, without
its skips.
"""

import torch
from torch import nn

from common.models.encoder_decoder import EncoderDecoder
from common.models.encoders import ImageEncoder
from common.models.layers import conv_transpose2x, init_convs


class Deconvolutions(nn.Module):
    """Four transposed convolutions from the coarsest map to stride 2, and a 1x1 classifier.

    The features' mean over the image is appended at every position (Liu, Rabinovich & Berg, ParseNet: Looking Wider to
    See Better, arXiv 2015): ImageNet has taught the encoder to classify whole images. Dropout of whole channels keeps
    the decoder from overfitting the few feature maps of a frozen encoder.

    Args:
        encoder: provides five maps; only the coarsest is used.
        num_classes: number of output channels.
    """

    def __init__(self, encoder: ImageEncoder, num_classes: int):
        super().__init__()
        self.dropout = nn.Dropout2d(0.3)
        self.up = nn.Sequential(
            deconv(2 * encoder.channels[-1], 256, encoder.anchor),  # 1/16
            deconv(256, 128, encoder.anchor),  # 1/8
            deconv(128, 64, encoder.anchor),  # 1/4
            deconv(64, 64, encoder.anchor),  # 1/2
        )
        self.classifier = nn.Conv2d(64, num_classes, kernel_size=1)
        init_convs(self, nn.init.xavier_uniform_)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Map five maps at strides 2, 4, 8, 16, 32 to logits (B, num_classes, H, W) at stride 2."""
        x = self.dropout(features[-1])
        mean = x.mean((2, 3), keepdim=True).expand_as(x)
        return self.classifier(self.up(torch.cat([x, mean], dim=1)))


class EncoderFCN(EncoderDecoder):
    """The decoder sees only the encoder's map at stride 32; see `EncoderDecoder` for the arguments."""

    decoder_class = Deconvolutions


def deconv(in_channels: int, out_channels: int, anchor: float) -> nn.Sequential:
    """Return a block that doubles the map: transposed convolution, ReLU, batch normalisation."""
    up = conv_transpose2x(in_channels, out_channels, anchor)
    return nn.Sequential(*up, nn.ReLU(inplace=True), nn.BatchNorm2d(out_channels))
