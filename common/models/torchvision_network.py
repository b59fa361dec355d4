"""TorchvisionNetwork: networks of torchvision that have already learnt to segment.

Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, 2017 (DeepLabV3); Howard et al., Searching
for MobileNetV3, ICCV 2019 (LR-ASPP); Long, Shelhamer & Darrell, Fully Convolutional Networks for Semantic Segmentation,
CVPR 2015 (FCN).
"""

from pathlib import Path
from typing import Literal

import torch
from torch import nn

from common.models.layers import Normalize, reset_momentum
from common.models.weights import copy_weights, download, read_weights
from common.system.errors import UserError

Network = Literal["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "fcn_resnet50"]
VOC_CLASSES = 21  # torchvision trained the networks on photographs of COCO, labelled with VOC's classes


class TorchvisionNetwork(nn.Module):
    """A network of torchvision.models.segmentation. Unless there are 21 classes, as in VOC, its last layer is new.

    Args:
        num_classes: number of output channels.
        network: torchvision's name of the network.
        pretrained: start from the weights that torchvision trained; the last layer has them only with 21 classes.
        weights: a local file with these weights, instead of a download.

    Raises:
        UserError: the weights are damaged, of another network, or cannot be downloaded.
    """

    def __init__(
        self,
        num_classes: int,
        network: Network = "lraspp_mobilenet_v3_large",
        pretrained: bool = True,
        weights: Path | str = "",
    ):
        super().__init__()
        if weights and not pretrained:
            raise UserError("--weights and --no-pretrained exclude each other; leave out one of them")
        from torchvision.models import get_model  # slow to import

        self.arguments = {"num_classes": num_classes, "network": network, "pretrained": False}
        self.normalize = Normalize()
        self.net = reset_momentum(get_model(network, weights=None, weights_backbone=None, num_classes=VOC_CLASSES))
        if pretrained:
            path = Path(weights) if weights else download(network, "name one with --weights")
            # The auxiliary classifier only served torchvision's training.
            trained = {k: tensor for k, tensor in read_weights(path).items() if not k.startswith("aux_classifier.")}
            copy_weights(trained, self.net, network, path)
        if num_classes != VOC_CLASSES:
            classifier = self.net.classifier
            for name, layer in list(classifier.named_modules()):
                if isinstance(layer, nn.Conv2d) and layer.out_channels == VOC_CLASSES:  # LR-ASPP has two
                    classifier.set_submodule(name, nn.Conv2d(layer.in_channels, num_classes, kernel_size=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 3, H, W) in [0, 1], of any size, to logits (B, num_classes, H, W)."""
        return self.net(self.normalize(images))["out"]
