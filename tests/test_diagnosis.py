import pytest
import torch

from common.metrics import ConfusionMatrix
from common.reporting.diagnosis import hints


def rows(losses, train_miou=0.4, val_miou=0.35):
    mious = {"train_miou": train_miou, "val_miou": val_miou}
    return [{"epoch": epoch, "train_loss": loss, **mious} for epoch, loss in enumerate([float("nan"), *losses])]


def scored(miou: float, *, background_alone: bool) -> ConfusionMatrix:
    """A test of three classes, a third of the pixels each, of which the share `miou` is predicted aright."""
    matrix, target = ConfusionMatrix(3), torch.arange(3).repeat(1, 300, 100)
    wrong = torch.rand(target.shape, generator=torch.Generator().manual_seed(0)) > miou
    matrix.update(
        torch.zeros_like(target) if background_alone else torch.where(wrong, (target + 1) % 3, target), target
    )
    return matrix


@pytest.mark.parametrize(
    ("history", "background_alone", "expected"),
    [
        (rows([2.0, 1.0, 0.5]), False, []),
        (rows([2.0, 1.99, 1.98]), False, ["the training loss hardly fell, from 2.000 to 1.980"]),
        (rows([2.0, 1.99]), False, []),  # too early to say
        (rows([2.0, 0.5]), True, ["100.00% of the test pixels are predicted sky: the network"]),
        (rows([2.0, 0.5], 0.8, 0.3), False, ["mIoU is 0.80 in training but 0.30 in validation: the network overfits"]),
        (rows([2.0, 0.5], 0.8, 0.7), False, []),
        (rows([9.0, 0.5], 0.1, 0.18), False, ["mIoU is 0.098, but predicting sky everywhere reaches 0.111"]),
        (rows([9.0, 0.5], 0.1, 0.3), False, []),  # the floor is 1/9
        (rows([9.0, 8.9, 8.9], 0.1, 0.18), False, ["the training loss hardly fell, from 9.000 to 8.900"]),
    ],
)
def test_each_trouble_is_named_and_nothing_else(history, background_alone, expected):
    test = scored(history[-1]["val_miou"], background_alone=background_alone)
    found = hints(history, test, ("sky", "tree", "road"))
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected, strict=True))
