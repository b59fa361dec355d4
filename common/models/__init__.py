"""The models, one file each. `MODELS` is the one place where a name stands for a class."""

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
from common.models.torchvision_network import TorchvisionNetwork as TorchvisionNetwork
from common.models.unet import UNet

# A checkpoint stores such a name and the arguments; nothing else can be built from it.
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
    "unet": UNet,
}

Model = Literal[tuple(MODELS)]  # the type of a script's --model


def build(name: str, num_classes: int, **options: object) -> nn.Module:
    """Return the model called `name`; of `options`, such as `encoder`, it gets those that it or its decoder has."""
    kind = MODELS[name]
    known = {**inspect.signature(kind).parameters, **inspect.signature(getattr(kind, "decoder_class", kind)).parameters}
    return kind(num_classes=num_classes, **{key: value for key, value in options.items() if key in known})


def name_of(model: nn.Module) -> str:
    """Return the name under which `MODELS` holds the class of `model`, or the class's own if it is not there."""
    return next((name for name, kind in MODELS.items() if type(model) is kind), type(model).__name__)


def count_parameters(model: nn.Module, trainable: bool = False) -> int:
    """Return how many numbers the model holds as parameters; only those that are trained, if `trainable`."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)
