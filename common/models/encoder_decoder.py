"""EncoderDecoder: the base class of the networks that have an ImageNet encoder."""

from pathlib import Path

import torch
from torch import nn

from common.models.encoders import build_encoder, dilate, freeze
from common.models.layers import upsample


class EncoderDecoder(nn.Module):
    """An encoder, which may be frozen, and a decoder, which is always trained.

    A subclass sets `decoder_class`; it is called with the encoder, the number of classes and `options`. The decoder
    turns the encoder's feature maps into logits at any stride. This class interpolates them to the size of the images.

    Args:
        encoder: a key of `common.models.encoders.ENCODERS`.
        num_classes: number of output channels.
        pretrained: start the encoder from ImageNet weights.
        encoder_weights: a local file with these weights, or a folder of such files.
        freeze_encoder: train only the decoder.
        output_stride: stride of the encoder's coarsest map, one of `output_strides`; the first by default.
        options: further arguments of the decoder.

    Raises:
        UserError: see `build_encoder`.
        ValueError: `output_stride` is not in `output_strides`.
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
        # Stored as pretrained=False, because a model rebuilt from a checkpoint gets its weights there.
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
        logits = self.decoder(features).float()  # in bf16, two classes tie in one pixel of 300
        stride = self.arguments["output_stride"] * features[-1].shape[-1] // logits.shape[-1]
        return upsample(logits, stride, self.encoder.anchor)[..., :height, :width]
