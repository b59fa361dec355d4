import pytest
import torch

from common.metrics import ConfusionMatrix
from common.reporting.diagnosis import hints


def rows(losses, train_miou=0.4, val_miou=0.35):
    return [{"train_loss": loss, "train_miou": train_miou, "val_miou": val_miou} for loss in losses]


def validation(*, background_alone: bool) -> ConfusionMatrix:
    matrix = ConfusionMatrix(3)
    target = torch.arange(3).repeat(1, 4, 4)
    matrix.update(torch.zeros_like(target) if background_alone else target, target)
    return matrix


@pytest.mark.parametrize(
    ("history", "background_alone", "expected"),
    [
        (rows([2.0, 1.0, 0.5]), False, []),
        (rows([2.0, 1.99, 1.98]), False, ["the training loss went from 2.000 to 1.980, hardly down"]),
        (rows([2.0, 1.99]), False, []),  # too early to say
        (rows([2.0, 0.5]), True, ["100.00% of the validation pixels are predicted sky: the network"]),
        (rows([2.0, 0.5], 0.8, 0.3), False, ["mIoU is 0.80 in training and 0.30 in validation: the network overfits"]),
        (rows([2.0, 0.5], 0.8, 0.7), False, []),
        (rows([9.0, 0.5], 0.1, 0.11), False, ["the best validation mIoU is 0.110, and to predict sky everywhere"]),
        (rows([9.0, 0.5], 0.1, 0.12), False, []),  # the floor is 1/9
        (rows([9.0, 8.9, 8.9], 0.1, 0.11), False, ["the training loss went from 9.000 to 8.900, hardly down"]),
    ],
)
def test_each_trouble_is_named_and_nothing_else(history, background_alone, expected):
    found = hints(history, validation(background_alone=background_alone), ("sky", "tree", "road"))
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected, strict=True))
