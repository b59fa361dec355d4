"""EncoderUNet: an ImageNet encoder whose maps are handed across to a decoder, as in the U-Net.

After Ronneberger, Fischer & Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015, with an
encoder that has seen ImageNet.
"""

from pathlib import Path

import torch
from torch import nn

from common.models.encoders import build_encoder, freeze
from common.models.layers import double, double_conv

WIDTHS = (256, 128, 64, 32)  # of the decoder at 1/16, 1/8, 1/4, 1/2


class EncoderUNet(nn.Module):
    """At each step up: double the map, append the encoder's map of that size, learn to combine the two.

    `encoder` holds what may be frozen, `decoder` all the rest.

    Args:
        encoder: a name in `common.models.encoders`.
        num_classes: number of output channels.
        pretrained: start the encoder from ImageNet weights.
        encoder_weights: a local file with them.
        freeze_encoder: train the decoder alone.

    Raises:
        UserError: see `build_encoder`.
    """

    def __init__(
        self,
        encoder: str,
        num_classes: int,
        pretrained: bool = True,
        encoder_weights: Path | str | None = None,
        freeze_encoder: bool = False,
    ):
        super().__init__()
        # A checkpoint has the weights; the network that takes them needs none of its own.
        self.arguments = {
            "encoder": encoder,
            "num_classes": num_classes,
            "pretrained": False,
            "freeze_encoder": freeze_encoder,
        }
        self.encoder = build_encoder(encoder, pretrained, encoder_weights)
        freeze(self.encoder, freeze_encoder)
        self.decoder = Decoder(self.encoder.channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 3, H, W) in [0, 1], of any size, to logits (B, num_classes, H, W)."""
        height, width = images.shape[-2:]
        return self.decoder(self.encoder(images))[..., :height, :width]


class Decoder(nn.Module):
    """Four steps up with a skip each, to half size; then a classifier, and interpolation to full size.

    Args:
        channels: of the encoder's five maps, finest first.
        num_classes: number of output channels.
    """

    def __init__(self, channels: list[int], num_classes: int):
        super().__init__()
        *skips, x = channels
        self.combine = nn.ModuleList()
        for skip, width in zip(reversed(skips), WIDTHS, strict=True):
            self.combine.append(double_conv(x + skip, width))
            x = width
        self.classifier = nn.Conv2d(x, num_classes, kernel_size=1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Map five maps at strides 2, 4, 8, 16, 32 to logits (B, num_classes, H, W) at stride 1."""
        *skips, x = features
        for combine, skip in zip(self.combine, reversed(skips), strict=True):
            x = combine(torch.cat([double(x), skip], dim=1))
        return double(self.classifier(x))
