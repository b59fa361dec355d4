"""Encoders: ImageNet networks without their classifier, which return feature maps at strides 2, 4, 8, 16 and 32."""

from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from common.models.layers import IMAGENET_MEAN, IMAGENET_STD, Normalize, pad_to_multiple, reset_momentum
from common.models.mobilenet_v1 import mobilenet_v1_layers
from common.models.weights import copy_weights, download, read_weights
from common.system.errors import UserError

# Functions import torchvision.models when they need it: this import takes as long as importing torch.

STRIDE = 32  # of the coarsest map


class ImageEncoder(nn.Module):
    """Run a network layer by layer and keep the outputs of five layers.

    Args:
        network: its children run in order.
        out_layers: names of the children whose outputs are the maps at strides 2, 4, 8, 16, 32.
        channels: number of channels of each of these maps.
        unused: prefixes of names in a weights file; these tensors belong to layers that are left out here.
        anchor: position of a feature in its s x s block of pixels, used to align upsampling. 0 is top left (strided
            convolutions padded on both sides), 0.5 the middle (2x2 pooling), 1 bottom right (strided convolutions
            padded only right and below).
        mean, std: of the images that the weights were trained on, per channel, for images in [0, 1].
    """

    def __init__(
        self,
        network: nn.Module,
        out_layers: tuple[str, ...],
        channels: list[int],
        unused: tuple[str, ...],
        anchor: float,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ):
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.network = network
        self.out_layers, self.channels, self.unused, self.anchor = out_layers, channels, unused, anchor
        self.frozen = False  # see `freeze`

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Map images (B, 3, H, W) in [0, 1] to five maps, finest first.

        Zeros pad height and width, right and below, to the next multiples of 32, so each map is half the previous one.
        """
        x = pad_to_multiple(self.normalize(images), STRIDE)
        features = []
        for name, layer in self.network.named_children():
            x = layer(x)
            if name in self.out_layers:
                features.append(x)
        return features

    @property
    def pools(self) -> bool:
        """Whether the maps are the outputs of pooling layers, as in VGG-16."""
        return all(isinstance(self.network.get_submodule(name), nn.MaxPool2d) for name in self.out_layers)

    def before_pooling(self) -> None:
        """If the network `pools`, output six maps: the input of each pooling (strides 1 to 16) and the last output."""
        if self.pools:  # only VGG: its layers are named by numbers, so number - 1 is the layer before
            self.out_layers = (*(str(int(name) - 1) for name in self.out_layers), self.out_layers[-1])
            self.channels = [*self.channels, self.channels[-1]]

    def train(self, mode: bool = True) -> "ImageEncoder":
        """Set the mode. A frozen encoder stays in evaluation mode, or BatchNorm would update its running averages."""
        return super().train(mode and not self.frozen)


def freeze(encoder: ImageEncoder, frozen: bool = True) -> None:
    """Freeze the encoder's parameters and BatchNorm statistics; with `frozen=False`, unfreeze both."""
    encoder.frozen = frozen
    encoder.requires_grad_(not frozen)
    encoder.train(not frozen)


def dilate(encoder: ImageEncoder, output_stride: int) -> None:
    """Replace the strides beyond `output_stride` by dilation, in place.

    The weights see the same inputs as before, so the new map contains all values of the old one, with others between
    them. A pooling that would no longer shrink the map is removed.
    Yu & Koltun, Multi-Scale Context Aggregation by Dilated Convolutions, ICLR 2016.
    """
    stride = dilation = 1  # of the output of the layers so far
    for name, layer in list(encoder.network.named_modules()):
        if not isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            continue
        size, step = (n if isinstance(n, int) else n[0] for n in (layer.kernel_size, layer.stride))
        if size == 1:  # a shortcut: its stride must equal that of its block's 3x3 convolution
            layer.stride = (1, 1) if dilation > 1 else layer.stride
            continue
        dilation_in = dilation  # of the layer's input; below, `dilation` is that of its output
        if stride * step > output_stride:
            dilation, step = dilation * step, 1
        stride *= step
        if dilation == 1:
            continue
        if isinstance(layer, nn.MaxPool2d):
            encoder.network.set_submodule(name, nn.Identity())
        else:
            layer.stride, layer.dilation = (step, step), (dilation_in, dilation_in)
            layer.padding = (dilation_in * (size // 2),) * 2


def resnet(name: str, channels: list[int]) -> ImageEncoder:
    """Return a ResNet: He et al., Deep Residual Learning for Image Recognition, CVPR 2016."""
    from torchvision.models import get_model

    network = get_model(name)
    del network.avgpool, network.fc
    return ImageEncoder(network, ("relu", "layer1", "layer2", "layer3", "layer4"), channels, unused=("fc.",), anchor=0)


def mobile(name: str, out_layers: tuple[str, ...], channels: list[int]) -> ImageEncoder:
    """Return torchvision's MobileNet or EfficientNet up to its last bottleneck.

    The 1x1 convolution after it is left out: it belongs to the classifier.
    """
    from torchvision.models import get_model

    network = reset_momentum(get_model(name).features[: int(out_layers[-1]) + 1])
    return ImageEncoder(network, out_layers, channels, (f"features.{len(network)}.", "classifier."), anchor=0)


def vgg16() -> ImageEncoder:
    """Return VGG-16: Simonyan & Zisserman, Very Deep Convolutional Networks for Large-Scale Recognition, ICLR 2015."""
    from torchvision.models import vgg16

    with torch.device("meta"):  # random weights for the classifier, which we drop, would take two seconds
        network = vgg16().features
    network.to_empty(device="cpu")
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    # The outputs of the five poolings, as FCN uses them.
    out_layers = ("4", "9", "16", "23", "30")
    return ImageEncoder(network, out_layers, channels=[64, 128, 256, 512, 512], unused=("classifier.",), anchor=0.5)


def mobilenet_v1() -> ImageEncoder:
    """Return MobileNetV1, see common/models/mobilenet_v1.py."""
    out_layers = ("pw1_bn", "pw3_bn", "pw5_bn", "pw11_bn", "pw12_bn")
    half = (0.5, 0.5, 0.5)  # x / 127.5 - 1, for x from 0 to 255
    channels, unused = [64, 128, 256, 512, 1024], ("dw13", "pw13", "fc.")
    return ImageEncoder(mobilenet_v1_layers(), out_layers, channels, unused, anchor=1, mean=half, std=half)


# Each function builds a network with random weights.
ENCODERS = {
    "resnet18": partial(resnet, "resnet18", channels=[64, 64, 128, 256, 512]),
    "resnet34": partial(resnet, "resnet34", channels=[64, 64, 128, 256, 512]),
    "resnet50": partial(resnet, "resnet50", channels=[64, 256, 512, 1024, 2048]),
    "vgg16": vgg16,
    "mobilenet_v1": mobilenet_v1,
    # Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018
    "mobilenet_v2": partial(mobile, "mobilenet_v2", ("1", "3", "6", "13", "17"), channels=[16, 24, 32, 96, 320]),
    # Howard et al., Searching for MobileNetV3, ICCV 2019
    "mobilenet_v3_large": partial(
        mobile, "mobilenet_v3_large", ("1", "3", "6", "12", "15"), channels=[16, 24, 40, 112, 160]
    ),
    # Tan & Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019
    "efficientnet_b0": partial(mobile, "efficientnet_b0", ("1", "2", "3", "5", "7"), channels=[16, 24, 40, 112, 320]),
}
Encoder = Literal[tuple(ENCODERS)]  # the type of a script's --encoder


def build_encoder(name: str, pretrained: bool = True, weights: Path | str | None = None) -> ImageEncoder:
    """Return the encoder called `name`.

    Args:
        name: a key of `ENCODERS`.
        pretrained: start from ImageNet weights instead of random ones.
        weights: a file, or a folder; the file <name>-*.pth in it is used, otherwise <name>*.pth. Without `weights`, or
            if the folder has no such file, torchvision's weights are downloaded once.

    Raises:
        UserError: the weights are missing, damaged, of another network, or cannot be downloaded.
    """
    if weights and not pretrained:
        raise UserError("--encoder-weights and --no-pretrained exclude each other; leave out one of them")
    path = local_file(Path(weights), name) if weights else None
    searched = f"{weights} holds no {name}*.pth, and " if weights and not path else ""
    if pretrained and not path and name == "mobilenet_v1":
        raise UserError(
            f"{searched}torchvision has no weights of mobilenet_v1 to download; name a file by --encoder-weights "
            "(docs/your-own.md tells how to make one from Keras' weights), or start from random ones with "
            "--no-pretrained"
        )
    encoder = ENCODERS[name]()
    if pretrained:
        otherwise = "name one with --encoder-weights, or start from random weights with --no-pretrained"
        path = path or download(name, otherwise, searched)
        # In torchvision's files of VGG, MobileNet and EfficientNet, the names of these tensors begin with "features.".
        tensors = {key.removeprefix("features."): tensor for key, tensor in read_weights(path).items()
                   if not key.startswith(encoder.unused)}  # fmt: skip
        copy_weights(tensors, encoder.network, name, path)
    return encoder


def local_file(path: Path, name: str) -> Path | None:
    """Return `path` or, if it is a folder, the file of weights for encoder `name` in it; None if it has none."""
    if not path.exists():
        raise UserError(f"--encoder-weights {path} is missing")
    if not path.is_dir():
        return path
    files = sorted([*path.glob(f"{name}*.pth"), *path.glob(f"{name}*.pt")])
    # "vgg16" must find torchvision's vgg16-397923af.pth and not vgg16_bn-6c64b313.pth.
    found = [file for file in files if file.name.startswith(f"{name}-")] or files
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise UserError(f"--encoder-weights {path} should hold one file called {name}*.pth; there: {names}")
    return found[0] if found else None
