import torch
from torch.nn import functional as F

from common.datasets import VOID
from common.losses import CrossEntropy


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 4, (2, 5, 5), generator=generator)
    target[0, :2] = VOID
    return torch.randn(2, 4, 5, 5, generator=generator), target


def test_the_quotient_is_torchs_mean_over_non_void_pixels():
    logits, target = batch()
    for weight in (None, torch.tensor([0.5, 1.0, 2.0, 3.0])):
        total, denominator = CrossEntropy(weight)(logits, target)
        torch.testing.assert_close(total / denominator, F.cross_entropy(logits, target, weight, ignore_index=VOID))


def test_sums_over_parts_give_the_mean_of_the_whole():
    logits, target = batch()
    criterion = CrossEntropy(torch.tensor([0.5, 1.0, 2.0, 3.0]))
    parts = [criterion(logits[i : i + 1], target[i : i + 1]) for i in range(2)]
    whole = criterion(logits, target)
    torch.testing.assert_close(sum(p[0] for p in parts) / sum(p[1] for p in parts), whole[0] / whole[1])


def test_a_batch_of_void_alone_adds_nothing_and_has_zero_gradient():
    logits = torch.randn(1, 4, 3, 3, requires_grad=True)
    total, weight = CrossEntropy()(logits, torch.full((1, 3, 3), VOID))
    total.backward()
    assert total.item() == 0 and weight.item() == 0
    assert logits.grad.abs().max() == 0
