"""Loss functions: from logits (B, C, H, W) and target (B, H, W) to a scalar.

A pixel is valid unless its target is VOID (255, the ignore_index). A script can use any function with this interface,
such as `torch.nn.CrossEntropyLoss(ignore_index=VOID)`, which is NaN for a batch without valid pixels; ours is 0. To
average over batches and processes, `common.engine` weights each loss by `pixel_weight`.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from common.datasets.segmentation_set import SegmentationSet
from common.labels import VOID
from common.system.errors import UserError


class CrossEntropy(nn.CrossEntropyLoss):
    """torch's cross-entropy over the valid pixels, faster on a CPU.

    Without valid pixels, the loss is 0; torch's is NaN.

    Args:
        weight: (num_classes,) float; by default, every class has weight 1.
    """

    def __init__(self, weight: torch.Tensor | None = None):
        super().__init__(weight, ignore_index=VOID)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Take `logits` (B, C, H, W) float and `target` (B, H, W) int64; return a 0-d float."""
        weight = pixel_weight(self, target)
        if logits.shape[1] >= 16:  # one row per pixel: on a CPU, twice as fast with 150 classes, slower with few
            logits, target = logits.permute(0, 2, 3, 1).flatten(0, 2), target.flatten()
        # Not reduction="sum": on a GPU, torch would use a single block for it.
        losses = F.cross_entropy(logits, target, self.weight, ignore_index=VOID, reduction="none")
        return losses.sum() / weight.clamp(min=1e-12)


class Dice(nn.Module):
    """Soft Dice loss: 1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1), averaged over the classes in the target.

    p is the softmax of a class; t is 1 in its pixels and 0 elsewhere. The sums run over all valid pixels of the batch.
    Every class counts the same, even with few pixels. Without valid pixels, the loss is 0.
    Milletari, Navab & Ahmadi, V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image Segmentation, 3DV
    2016; the paper has squares in the denominator.
    """

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Take `logits` (B, C, H, W) float and `target` (B, H, W) int64; return a 0-d float."""
        valid, dims = target != VOID, (0, 2, 3)
        onehot = F.one_hot(target * valid, logits.shape[1]).permute(0, 3, 1, 2) * valid[:, None]
        probs = logits.softmax(1) * valid[:, None]
        pixels, intersection = onehot.sum(dims), (probs * onehot).sum(dims)
        loss = 1 - (2 * intersection + 1) / (probs.sum(dims) + pixels + 1)
        present = pixels > 0
        return (loss * present).sum() / present.sum().clamp(min=1)


class Focal(nn.Module):
    """Focal loss: the mean over all valid pixels of -(1 - p)^gamma log p, where p is the softmax of the true class.

    A pixel that is already correct counts little. Without valid pixels, the loss is 0.
    Lin, Goyal, Girshick, He & Dollar, Focal Loss for Dense Object Detection, ICCV 2017.

    Args:
        gamma: 2 in the paper; 0 gives cross-entropy.
    """

    def __init__(self, gamma: float = 2.0):
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Take `logits` (B, C, H, W) float and `target` (B, H, W) int64; return a 0-d float."""
        loss = F.cross_entropy(logits, target, ignore_index=VOID, reduction="none")  # -log p; 0 where void
        # Where p = 1, the base is 0, and its gradient is infinite for gamma below 1: hence the clamp.
        loss = (-torch.expm1(-loss)).clamp(min=1e-12) ** self.gamma * loss
        return loss.sum() / (target != VOID).sum().clamp(min=1)


class Sum(nn.Module):
    """The sum of several losses: `Sum(CrossEntropy(), Dice())`."""

    def __init__(self, *losses: nn.Module):
        super().__init__()
        self.losses = nn.ModuleList(losses)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Take `logits` (B, C, H, W) float and `target` (B, H, W) int64; return a 0-d float."""
        return sum(loss(logits, target) for loss in self.losses)


def weighted_loss(criterion: Callable, logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch's loss and the weight of its pixels; an empty batch gives 0, on which backward() works."""
    loss = criterion(logits, target) if len(target) else logits.sum()
    if not isinstance(loss, torch.Tensor) or loss.ndim:
        found = f"the shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise UserError(f"the criterion gives {found}; it must give a scalar tensor, the mean over all pixels")
    return loss, pixel_weight(criterion, target)


def pixel_weight(criterion: nn.Module, target: torch.Tensor) -> torch.Tensor:
    """Return the number (0-d float) by which `criterion` divides its sum over `target` (B, H, W).

    It is the sum of the class weights over all valid pixels if `criterion.weight` holds class weights, as in torch's
    CrossEntropyLoss; otherwise the number of valid pixels.
    """
    valid = target != VOID
    weight = getattr(criterion, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.ndim != 1:
        return valid.sum().float()
    return (weight[target * valid] * valid).sum()


def class_weights(data: SegmentationSet, cap: float = 10.0) -> torch.Tensor:
    """Return class weights (num_classes,) float against the class imbalance in the masks of `data`.

    w_c = min(cap, s / sqrt(f_c)), where f_c is the share of class c among the valid pixels. Before the cap, s makes the
    mean weight of a pixel 1: the sum over c of f_c * s / sqrt(f_c) is 1. With 1 / f_c instead of 1 / sqrt(f_c), a
    rare class would dominate the loss of the few images that show it.

    A class that does not occur has weight 1: it does not matter in training, but the validation set may have the class.
    """
    counts = data.pixel_counts().double()
    share = counts / counts.sum().clamp(min=1)
    weights = 1 / (share.sqrt() * share.sqrt().sum())
    return torch.where(share > 0, weights.clamp(max=cap), 1).float()
