from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from common.datasets.segmentation_set import SegmentationSet
from common.labels import VOID
from common.losses import CrossEntropy, Dice, Focal, Sum, class_weights, pixel_weight
from common.metrics import WeightedMean


def set_of(masks: torch.Tensor, num_classes: int) -> SegmentationSet:
    images = torch.zeros(len(masks), 3, *masks.shape[1:], dtype=torch.uint8)
    classes = tuple(f"class {i}" for i in range(num_classes))
    names = [str(i) for i in range(len(masks))]
    return SegmentationSet(images, masks, names, classes, ((0, 0, 0),) * num_classes, "a test's", "train")


def masks_of(*counts: int, void: int = 0) -> torch.Tensor:
    """One mask with so many pixels of class 0, 1, ..., and of void."""
    values = np.repeat([*range(len(counts)), VOID], [*counts, void])
    return torch.from_numpy(values.astype(np.uint8))[None, None]


def test_class_weights_are_one_over_the_root_of_the_share_up_to_10_and_the_mean_pixel_weighs_one():
    weights = class_weights(set_of(masks_of(64, 16, 4, void=1000), 3))
    assert torch.allclose(weights, torch.tensor([1.0, 2.0, 4.0]) * 84 / (64 + 2 * 16 + 4 * 4))
    weights = class_weights(set_of(masks_of(1_000_000, 10_000, 1), 3))
    assert weights.dtype == torch.float32 and weights[2] == 10 and weights[0] < 1 < weights[1] < 10


def test_a_class_that_does_not_occur_weighs_one_and_changes_no_other():
    weights = class_weights(set_of(masks_of(64, 0, 16, 4), 5))
    others = class_weights(set_of(masks_of(64, 16, 4), 3))
    assert torch.allclose(weights, torch.tensor([others[0], 1.0, others[1], others[2], 1.0]))
    assert torch.equal(class_weights(set_of(masks_of(void=10), 4)), torch.ones(4))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 4, (2, 5, 5), generator=generator)
    target[0, :2] = VOID
    return torch.randn(2, 4, 5, 5, generator=generator), target


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 1.0, 2.0, 3.0])])
def test_it_and_its_gradient_are_torchs_mean_over_the_pixels_that_are_not_void(weight, layout):
    results = []
    for loss in (CrossEntropy(weight), nn.CrossEntropyLoss(weight, ignore_index=VOID)):
        logits, target = batch()
        logits = logits.to(memory_format=layout).requires_grad_()
        mean = loss(logits, target)
        mean.backward()
        results.append((mean.detach(), logits.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 1.0, 2.0, 3.0])])
@pytest.mark.parametrize("kind", [CrossEntropy, partial(nn.CrossEntropyLoss, ignore_index=VOID)])
def test_means_of_parts_by_their_weights_are_the_mean_of_the_whole(kind, weight):
    logits, target = batch()
    criterion, mean = kind(weight), WeightedMean()
    for i in range(2):
        mean.update(criterion(logits[i : i + 1], target[i : i + 1]), pixel_weight(criterion, target[i : i + 1]))
    assert mean.compute() == pytest.approx(criterion(logits, target).item())
    assert mean.compute() != pytest.approx(sum(criterion(logits[i : i + 1], target[i : i + 1]) for i in range(2)) / 2)


def test_a_loss_without_class_weights_is_weighed_by_its_pixels():
    _, target = batch()
    odd = nn.Linear(3, 4)  # its `weight` is no weight of classes
    assert pixel_weight(nn.Identity(), target) == pixel_weight(odd, target) == (target != VOID).sum()


@pytest.mark.parametrize("kind", [CrossEntropy, Dice, Focal])
def test_a_batch_of_void_alone_adds_nothing_and_has_zero_gradient(kind):
    logits, target = torch.randn(1, 4, 3, 3, requires_grad=True), torch.full((1, 3, 3), VOID)
    loss = kind()(logits, target)
    loss.backward()
    assert loss.item() == 0 and pixel_weight(kind(), target) == 0
    assert logits.grad.abs().max() == 0


def test_dice_is_the_mean_over_the_classes_in_the_target_of_what_the_formula_says():
    logits, target = batch()
    target[target == 3] = 2  # class 3 does not occur
    p, valid = logits.softmax(1), target != VOID
    losses = []
    for c in range(3):
        overlap, sizes = p[:, c][target == c].sum(), p[:, c][valid].sum() + (target == c).sum()
        losses.append(1 - (2 * overlap + 1) / (sizes + 1))
    torch.testing.assert_close(Dice()(logits, target), torch.stack(losses).mean())


def test_focal_is_what_the_formula_says_and_with_gamma_0_cross_entropy():
    logits, target = batch()
    torch.testing.assert_close(Focal(gamma=0)(logits, target), CrossEntropy()(logits, target))
    p = logits.softmax(1).movedim(1, -1)[target != VOID].gather(1, target[target != VOID][:, None])[:, 0]
    torch.testing.assert_close(Focal()(logits, target), (-((1 - p) ** 2) * p.log()).mean())


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2])
def test_focal_has_a_gradient_where_a_pixel_is_certain_or_void(gamma):
    logits = torch.tensor([[17.0, 0.0], [200.0, 0.0], [0.0, 1.0], [0.0, 1.0]]).T[None, ..., None].requires_grad_()
    Focal(gamma)(logits, torch.tensor([0, 0, 0, VOID]).view(1, 4, 1)).backward()
    assert logits.grad.isfinite().all() and logits.grad[0, :, 2].all() and not logits.grad[0, :, 3].any()


def test_a_sum_of_losses_is_their_sum():
    logits, target = batch()
    assert Sum(CrossEntropy(), Dice())(logits, target) == CrossEntropy()(logits, target) + Dice()(logits, target)
