"""TorchvisionNetwork: makes a network of torchvision.models.segmentation usable in a script."""

import torch
from torch import nn

from common.models.layers import Normalize


class TorchvisionNetwork(nn.Module):
    """Normalise the images with ImageNet's mean and std, and return only the network's logits.

    Args:
        network: such as torchvision.models.segmentation.fcn_resnet50(num_classes=21, weights_backbone="DEFAULT").
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.normalize, self.network = Normalize(), network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 3, H, W) in [0, 1], of any size, to logits (B, num_classes, H, W)."""
        return self.network(self.normalize(images))["out"]
