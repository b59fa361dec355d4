"""EncoderDecoder: what the networks on an ImageNet encoder have in common."""

from pathlib import Path

import torch
from torch import nn

from common.models.encoders import build_encoder, dilate, freeze
from common.models.layers import upsample


class EncoderDecoder(nn.Module):
    """An encoder, which may be frozen, and a decoder, which is always trained.

    An architecture defines `make_decoder`; the decoder turns the encoder's maps into logits of any stride, which are
    interpolated to the image's size here.

    Args:
        encoder: a name in `common.models.encoders`.
        num_classes: number of output channels.
        pretrained: start the encoder from ImageNet weights.
        encoder_weights: a local file with them.
        freeze_encoder: train the decoder alone.
        output_stride: stride of the encoder's coarsest map, one of `output_strides`; by default the first of them.
        image_size: height and width in pixels of the images to train on, or one number for both; DeepLabV3 looks as far
            as suits that.

    Raises:
        UserError: see `build_encoder`.
        ValueError: a stride that the architecture is not made for.
    """

    output_strides: tuple[int, ...] = (32,)

    def __init__(
        self,
        encoder: str,
        num_classes: int,
        pretrained: bool = True,
        encoder_weights: Path | str | None = None,
        freeze_encoder: bool = False,
        output_stride: int | None = None,
        image_size: int | tuple[int, int] = 513,
    ):
        super().__init__()
        output_stride = output_stride or self.output_strides[0]
        if output_stride not in self.output_strides:
            raise ValueError(f"{type(self).__name__} takes output_stride {self.output_strides}, not {output_stride}")
        # A checkpoint has the weights; the network that takes them needs none of its own.
        self.arguments = {"encoder": encoder, "num_classes": num_classes, "pretrained": False}
        self.arguments["output_stride"] = output_stride
        shorter = image_size if isinstance(image_size, int) else min(image_size)
        self.arguments["image_size"] = min(513, shorter)  # larger ones change nothing
        self.encoder = build_encoder(encoder, pretrained, encoder_weights)
        dilate(self.encoder, output_stride)
        freeze(self.encoder, freeze_encoder)
        self.decoder = self.make_decoder(num_classes)

    def make_decoder(self, num_classes: int) -> nn.Module:
        """Return the decoder: from a list of the encoder's maps, finest first, to logits (B, num_classes, h, w)."""
        raise NotImplementedError

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 3, H, W) in [0, 1], of any size, to logits (B, num_classes, H, W)."""
        height, width = images.shape[-2:]
        features = self.encoder(images)
        logits = self.decoder(features).float()  # bf16 would make two classes equal in one pixel of 300
        stride = self.arguments["output_stride"] * features[-1].shape[-1] // logits.shape[-1]
        anchor = self.encoder.anchor if stride > 2 else 0.5  # which is faster, and half a pixel beside it
        return upsample(logits, stride, anchor)[..., :height, :width]
