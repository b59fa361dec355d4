"""What to try when a training did not go as it should: said once, at its end."""

import torch

from common.metrics import ConfusionMatrix
from common.run import Run
from common.system.errors import UserError


def diverged(loss: float, where: str, lr: float, run: Run) -> UserError:
    """Return the error that names a loss which is not finite, where it was, and at which learning rate."""
    others = ", or --precision fp32: fp16 ends at 65504" * (run.precision == "fp16")
    return UserError(
        f"the loss is {loss} {where}, at learning rate {lr:.2g}; try a smaller one, or clip_norm=1 in fit{others}"
    )


def check_logits(logits: object, masks: torch.Tensor, num_classes: int) -> None:
    """Raise UserError unless a model's output is the logits (B, num_classes, H, W) of `masks` (B, H, W)."""
    batch, height, width = masks.shape
    expected, found = (batch, num_classes, height, width), getattr(logits, "shape", None)
    if not isinstance(logits, torch.Tensor):
        raise UserError(
            f"the model returns {type(logits).__name__} instead of a tensor of logits; one of torchvision's goes into "
            "TorchvisionNetwork(...)"
        )
    if tuple(found) != expected:
        raise UserError(
            f"the model's output has the shape {tuple(found)}, and should have {expected}: logits of {num_classes} "
            "classes at the images' size"
        )


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
