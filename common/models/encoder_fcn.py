"""EncoderFCN: an ImageNet encoder and four transposed convolutions; with the encoder frozen, only those are trained.

In the spirit of Long, Shelhamer & Darrell, Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, without
its skips.
"""

from pathlib import Path

import torch
from torch import nn

from common.models.basic_fcn import up
from common.models.encoders import build_encoder, freeze
from common.models.layers import double, xavier_init


class EncoderFCN(nn.Module):
    """Encoder to 1/32, four deconvolutions to 1/2, a 1x1 classifier, and bilinear interpolation to full size.

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
        freeze_encoder: bool = True,
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
        self.decoder = nn.Sequential(
            up(self.encoder.channels[-1], 256),  # 1/16
            up(256, 128),  # 1/8
            up(128, 64),  # 1/4
            up(64, 64),  # 1/2
            nn.Conv2d(64, num_classes, kernel_size=1),
        )
        xavier_init(self.decoder)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 3, H, W) in [0, 1], of any size, to logits (B, num_classes, H, W)."""
        height, width = images.shape[-2:]
        return double(self.decoder(self.encoder(images)[-1]))[..., :height, :width]
