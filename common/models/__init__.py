"""The models, one file each. `MODELS` maps their names to their classes."""

import inspect
from typing import Literal

from torch import nn

from common.models.ade_unet import ADEUNet
from common.models.aspp_unet import ASPPUNet
from common.models.basic_fcn import BasicFCN
from common.models.deeplabv3 import DeepLabV3
from common.models.deeplabv3plus import DeepLabV3Plus
from common.models.dilated_fcn import DilatedFCN
from common.models.encoder_fcn import EncoderFCN
from common.models.encoder_unet import EncoderUNet
from common.models.encoders import Encoder as Encoder
from common.models.fast_unet import FastUNet
from common.models.fcn8s import FCN8s
from common.models.fcn_vgg16 import FCNVGG16
from common.models.pspnet import PSPNet
from common.models.resnet_v2_fcn import ResNetV2FCN
from common.models.segnet import SegNet
from common.models.torchvision_network import Network as Network
from common.models.torchvision_network import TorchvisionNetwork
from common.models.unet import UNet

# A checkpoint stores one of these names and the arguments; no other class can be built from a file.
MODELS: dict[str, type[nn.Module]] = {
    "ade_unet": ADEUNet,
    "aspp_unet": ASPPUNet,
    "basic_fcn": BasicFCN,
    "dilated_fcn": DilatedFCN,
    "encoder_fcn": EncoderFCN,
    "encoder_unet": EncoderUNet,
    "fast_unet": FastUNet,
    "fcn_vgg16": FCNVGG16,
    "fcn8s": FCN8s,
    "segnet": SegNet,
    "pspnet": PSPNet,
    "deeplabv3": DeepLabV3,
    "deeplabv3plus": DeepLabV3Plus,
    "resnet_v2_fcn": ResNetV2FCN,
    "torchvision": TorchvisionNetwork,
    "unet": UNet,
}

Model = Literal[tuple(MODELS)]  # the type of a script's --model


def build(name: str, num_classes: int, **options: object) -> nn.Module:
    """Return the model called `name`; ignore `options`, such as `encoder`, that neither it nor its decoder takes."""
    kind = MODELS[name]
    known = {**inspect.signature(kind).parameters, **inspect.signature(getattr(kind, "decoder_class", kind)).parameters}
    return kind(num_classes=num_classes, **{key: value for key, value in options.items() if key in known})


def name_of(model: nn.Module) -> str:
    """Return the key of the model's class in `MODELS`, or the name of the class if it has no key."""
    return next((name for name, kind in MODELS.items() if type(model) is kind), type(model).__name__)


def count_parameters(model: nn.Module, trainable: bool = False) -> int:
    """Return the number of parameters; with `trainable`, without the frozen ones."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)
