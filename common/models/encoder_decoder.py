"""EncoderDecoder: what the networks on an ImageNet encoder have in common."""

from pathlib import Path

import torch
from torch import nn

from common.models.encoders import build_encoder, dilate, freeze
from common.models.layers import upsample


class EncoderDecoder(nn.Module):
    """An encoder, which may be frozen, and a decoder, which is always trained.

    An architecture names its `decoder_class`, which is built for the encoder and the number of classes. The decoder
    turns the encoder's maps into logits of any stride, which are interpolated to the image's size here.

    Args:
        encoder: a name in `common.models.encoders`.
        num_classes: number of output channels.
        pretrained: start the encoder from ImageNet weights.
        encoder_weights: a local file with them.
        freeze_encoder: train the decoder alone.
        output_stride: stride of the encoder's coarsest map, one of `output_strides`; by default the first of them.
        options: arguments that the architecture's decoder has beyond these two.

    Raises:
        UserError: see `build_encoder`.
        ValueError: a stride that the architecture is not made for.
    """

    decoder_class: type[nn.Module]
    output_strides: tuple[int, ...] = (32,)

    def __init__(
        self,
        encoder: str,
        num_classes: int,
        pretrained: bool = True,
        encoder_weights: Path | str | None = None,
        freeze_encoder: bool = False,
        output_stride: int | None = None,
        **options: object,
    ):
        super().__init__()
        output_stride = output_stride or self.output_strides[0]
        if output_stride not in self.output_strides:
            raise ValueError(f"{type(self).__name__} takes output_stride {self.output_strides}, not {output_stride}")
        # A checkpoint has the weights; the network that takes them needs none of its own.
        self.arguments = {"encoder": encoder, "num_classes": num_classes, "pretrained": False}
        self.arguments |= {"output_stride": output_stride, **options}
        self.encoder = build_encoder(encoder, pretrained, encoder_weights)
        dilate(self.encoder, output_stride)
        freeze(self.encoder, freeze_encoder)
        self.decoder = self.decoder_class(self.encoder, num_classes, **options)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 3, H, W) in [0, 1], of any size, to logits (B, num_classes, H, W)."""
        height, width = images.shape[-2:]
        features = self.encoder(images)
        logits = self.decoder(features).float()  # bf16 would make two classes equal in one pixel of 300
        stride = self.arguments["output_stride"] * features[-1].shape[-1] // logits.shape[-1]
        return upsample(logits, stride, self.encoder.anchor)[..., :height, :width]
