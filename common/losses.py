"""Loss functions."""

import torch
from torch import nn
from torch.nn import functional as F

from common.datasets.segmentation_set import VOID, SegmentationSet


class CrossEntropy(nn.Module):
    """Cross-entropy over the pixels that are not void, each class optionally weighted.

    Returns two numbers, the summed loss and the sum of the weights of its pixels, because the mean over several batches
    or processes is the quotient of sums, not the mean of quotients. A batch that is void everywhere adds 0 to both.

    Args:
        weight: (num_classes,) float; by default every class weighs 1.
    """

    def __init__(self, weight: torch.Tensor | None = None):
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Take `logits` (B, C, H, W) float and `target` (B, H, W) int64; return (total, weight), both 0-d float."""
        # As rows, one a pixel, which is how they lie in channels-last: torch is twice as fast at that on a CPU.
        rows = logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1])
        total = F.cross_entropy(rows, target.flatten(), self.weight, ignore_index=VOID, reduction="sum")
        valid = target != VOID
        if self.weight is None:
            return total, valid.sum().float()
        return total, (self.weight[target * valid] * valid).sum()


def class_weights(data: SegmentationSet, cap: float = 10.0) -> torch.Tensor:
    """Return weights (num_classes,) float against the imbalance of the classes in the masks of `data`.

    w_c = min(cap, s / sqrt(f_c)), where f_c is the class's share of all pixels that are not void, and s makes the mean
    weight of a pixel 1, that is sum over c of f_c * s / sqrt(f_c). The root and the cap keep a class that is seen in a
    single image from having more say than all others together, which 1 / f_c would give it.

    A class that does not occur weighs 1: training never asks for it, and a validation set that has it is scored on it.
    """
    counts = torch.zeros(256, dtype=torch.int64)
    for masks in data.masks.split(64):  # mapped from disk: never the whole set in memory
        counts += masks.flatten().bincount(minlength=256)
    counts = counts[: data.num_classes].double()
    share = counts / counts.sum().clamp(min=1)
    weights = 1 / (share.sqrt() * share.sqrt().sum())
    return torch.where(share > 0, weights.clamp(max=cap), 1).float()
