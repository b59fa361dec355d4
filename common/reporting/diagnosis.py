"""What to try when a training did not go as it should: said once, at its end."""

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from common.metrics import ConfusionMatrix
from common.run import Run
from common.system.errors import UserError


def diverged(where: str, lr: float, run: Run) -> UserError:
    """Return the error for a loss that is not finite: where this happened, and at which learning rate."""
    others = ", or --precision fp32: fp16 ends at 65504" * (run.precision == "fp16")
    return UserError(
        f"the loss is NaN or infinite {where}, at learning rate {lr:.2g}; try a smaller rate, or clip_norm=1 in "
        f"fit{others}"
    )


def not_overfitted(network: nn.Module, miou: float, enough: float) -> UserError:
    """Return the error that a network could not overfit one image."""
    return UserError(
        f"{type(network).__name__} reached mIoU {miou:.4f} on the image it was to overfit, not {enough}. Look at the "
        "curves, of the network in training mode: where the loss still falls, or mIoU is above this, more --steps may "
        "help; where it jumps, a smaller --lr; where it is flat, the network, the loss or the labels are broken"
    )


def check_logits(logits: object, masks: torch.Tensor, num_classes: int) -> None:
    """Raise UserError unless a model's output is the logits (B, num_classes, H, W) of `masks` (B, H, W)."""
    expected = (len(masks), num_classes, *masks.shape[1:])
    found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if found != expected:
        raise UserError(
            f"the model returns {found}, and should return a tensor of the shape {expected}: logits of {num_classes} "
            "classes at the images' size; a model of torchvision's goes into TorchvisionNetwork(...)"
        )


def check_schedule(scheduler: LRScheduler | None, epochs: int, steps: int, patience: int, keep: str) -> None:
    """Raise UserError if `fit` would follow the schedule by the wrong steps, or keep an epoch in its middle.

    Args:
        steps: batches in an epoch.
    """
    if steps > 1 and getattr(scheduler, "T_max", 0) == epochs:
        raise UserError(
            f"CosineAnnealingLR(T_max={epochs}) ends after {epochs} batches, for fit steps a scheduler after each; "
            "give T_max=epochs * len(train_loader)"
        )
    if patience and keep == "last":
        raise UserError(f'keep="last" needs all epochs, and patience={patience} may end before; leave out one of them')


def hints(history: list[dict], test: ConfusionMatrix, classes: tuple[str, ...]) -> list[str]:
    """Return a sentence for each of the usual troubles that the rows of history.csv and the test show."""
    history = [row for row in history if row["epoch"]]
    found, first, last = [], history[0], history[-1]
    if len(history) >= 3 and last["train_loss"] > 0.98 * first["train_loss"]:
        found.append(
            f"the training loss went from {first['train_loss']:.3f} to {last['train_loss']:.3f}, hardly down: try "
            "another --lr, ten times smaller or larger; overfit.py shows whether a model can learn a single image"
        )
    predicted = test.counts[:-1].sum(0)
    share = predicted.max() / predicted.sum().clamp(min=1)
    if share > 0.999 and (test.counts[:-1].sum(1) > 0).sum() > 1:
        frequent = predicted.argmax() == test.most_frequent()
        why = "has learnt what is frequent alone" if frequent else "tells nothing apart yet"
        found.append(
            f"{share:.2%} of the test pixels are predicted {classes[predicted.argmax()]}: the network {why}; try "
            "more --epochs, class weights as in train_4_c.py, or a pretrained encoder"
        )
    if last["train_miou"] - last["val_miou"] > 0.2 and last["val_miou"] < 0.6 * last["train_miou"]:
        found.append(
            f"mIoU is {last['train_miou']:.2f} in training and {last['val_miou']:.2f} in validation: the network "
            "overfits; try more images or, where the script has none, augmentation as in train_4_b.py or a pretrained "
            "encoder as in train_5_b.py"
        )
    miou, floor = test.mean_iou(), test.floor().mean_iou()
    if not found and miou <= 1.02 * floor:
        found.append(
            f"mIoU is {miou:.3f}, and {classes[test.most_frequent()]} everywhere reaches {floor:.3f}: next to nothing "
            "is learnt; try an --lr ten times smaller or larger, or more --epochs"
        )
    return found
