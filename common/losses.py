"""Loss functions."""

import torch
from torch import nn
from torch.nn import functional as F

from common.datasets.segmentation_set import VOID


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
        total = F.cross_entropy(logits, target, self.weight, ignore_index=VOID, reduction="sum")
        valid = target != VOID
        if self.weight is None:
            return total, valid.sum().float()
        return total, (self.weight[target * valid] * valid).sum()
