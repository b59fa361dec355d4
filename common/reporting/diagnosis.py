"""Find common mistakes before, during and after training, and say what to try."""

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from common.metrics import ConfusionMatrix
from common.run import Run
from common.system.errors import UserError


def diverged(where: str, lr: float, run: Run) -> UserError:
    """Return the error for a loss that is not finite; `where` names the batch."""
    others = ", or --precision fp32: the largest fp16 number is 65504" * (run.precision == "fp16")
    return UserError(
        f"the loss is NaN or infinite {where}, at learning rate {lr:.2g}; try a smaller rate, or clip_norm=1 in "
        f"fit{others}"
    )


def not_overfitted(network: nn.Module, miou: float, enough: float) -> UserError:
    """Return the error that a network could not overfit one image."""
    return UserError(
        f"{type(network).__name__} reached mIoU {miou:.4f} on its one training image, not {enough}. Look at the curves "
        "(in training mode): if the loss still falls, or mIoU is higher there, try more --steps; if the loss jumps, "
        "try a smaller --lr; if it is flat, the network, the loss or the labels are broken"
    )


def check_logits(logits: object, masks: torch.Tensor, num_classes: int) -> None:
    """Raise UserError unless a model's output is the logits (B, num_classes, H, W) of `masks` (B, H, W)."""
    expected = (len(masks), num_classes, *masks.shape[1:])
    found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if found != expected:
        raise UserError(
            f"the model returns {found}, but should return a tensor of shape {expected}: logits of {num_classes} "
            "classes at the images' size; of a torchvision network's dict, return only \"out\""
        )


def check_schedule(scheduler: LRScheduler | None, epochs: int, steps: int, patience: int, keep: str) -> None:
    """Raise UserError if the schedule counts epochs instead of batches, or if `keep` and `patience` conflict.

    Args:
        steps: batches per epoch.
    """
    if steps > 1 and getattr(scheduler, "T_max", 0) == epochs:
        raise UserError(
            f"CosineAnnealingLR(T_max={epochs}) ends after {epochs} batches, because fit steps the scheduler after "
            "each batch; use T_max=epochs * len(train_loader)"
        )
    if patience and keep == "last":
        raise UserError(f'keep="last" needs all epochs, but patience={patience} may stop earlier; remove one of them')


def hints(history: list[dict], test: ConfusionMatrix, classes: tuple[str, ...]) -> list[str]:
    """Return a sentence for each common problem visible in the rows of history.csv and in the test."""
    history = [row for row in history if row["epoch"]]
    found, first, last = [], history[0], history[-1]
    if len(history) >= 3 and last["train_loss"] > 0.98 * first["train_loss"]:
        found.append(
            f"the training loss hardly fell, from {first['train_loss']:.3f} to {last['train_loss']:.3f}: try an --lr "
            "ten times smaller or larger; overfit.py shows whether a model can learn a single image"
        )
    predicted = test.counts[:-1].sum(0)
    share = predicted.max() / predicted.sum().clamp(min=1)
    if share > 0.999 and (test.counts[:-1].sum(1) > 0).sum() > 1:
        frequent = predicted.argmax() == test.most_frequent()
        why = "has only learnt the most frequent class" if frequent else "does not distinguish the classes yet"
        found.append(
            f"{share:.2%} of the test pixels are predicted {classes[predicted.argmax()]}: the network {why}; try "
            "more --epochs, class weights as in train_4_c.py, or a pretrained encoder"
        )
    if last["train_miou"] - last["val_miou"] > 0.2 and last["val_miou"] < 0.6 * last["train_miou"]:
        found.append(
            f"mIoU is {last['train_miou']:.2f} in training but {last['val_miou']:.2f} in validation: the network "
            "overfits; try more images, augmentation as in train_4_b.py, or a pretrained encoder as in train_5_b.py"
        )
    miou, floor = test.mean_iou(), test.floor().mean_iou()
    if not found and miou <= 1.02 * floor:
        found.append(
            f"mIoU is {miou:.3f}, but predicting {classes[test.most_frequent()]} everywhere reaches {floor:.3f}: the "
            "network has learnt almost nothing; try an --lr ten times smaller or larger, or more --epochs"
        )
    return found
