"""The training history: one row per epoch, as in history.csv. Epoch 0 is the untrained model."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from common.system.files import write_text


def epoch_row(epoch: int, rates: dict, train: tuple | None, val: tuple, seconds: float = 0) -> dict[str, float]:
    """Return a row of history.csv.

    Args:
        epoch: number of the epoch; 0 is the untrained model.
        rates: learning rates at the start of the epoch, from `learning_rates`.
        train: mean loss and confusion matrix of training; None for epoch 0.
        val: mean loss and confusion matrix of validation.
        seconds: duration of the epoch, with validation.
    """
    row = {"epoch": epoch} | rates
    for split, scores in (("train", train), ("val", val)):
        loss, matrix = scores or (math.nan, None)
        row[f"{split}_loss"] = loss
        row[f"{split}_miou"] = matrix.mean_iou() if matrix else math.nan
        row[f"{split}_pixel_accuracy"] = matrix.pixel_accuracy() if matrix else math.nan
    return row | {"train_images_per_second": math.nan, "seconds": seconds}


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the learning rates for history.csv: `lr_<name>` of each named parameter group, and `lr` of the last."""
    groups = optimizer.param_groups
    return {"lr": groups[-1]["lr"]} | {f"lr_{group['name']}": group["lr"] for group in groups if "name" in group}


def last_epoch(history: Sequence[dict]) -> int:
    """Return the number of the last epoch in `history`; 0 if the history is empty."""
    return int(history[-1]["epoch"]) if history else 0


def best_row(history: list[dict]) -> dict:
    """Return the row of the epoch, from 1, with the best validation mIoU: the first of equals; NaN is the worst."""
    trained = [row for row in history if row["epoch"]]
    return max(trained, key=lambda row: -1 if math.isnan(row["val_miou"]) else row["val_miou"])


def kept_row(history: list[dict]) -> dict:
    """Return the row of the epoch that `fit` kept last; its model is in best_<run>.pt."""
    return next(row for row in reversed(history) if row.get("kept") == 1)


def out_of_patience(history: list[dict], patience: int) -> bool:
    """Return whether the validation mIoU has not improved for `patience` epochs; False if `patience` is 0."""
    return bool(patience) and last_epoch(history) > 0 and last_epoch(history) - best_row(history)["epoch"] >= patience


def read_history(folder: Path) -> list[dict[str, float]]:
    """Return the rows of the history.csv in a run's `folder`."""
    lines = (folder / "history.csv").read_text(encoding="utf-8").splitlines()
    return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(lines)]


def write_history(folder: Path, history: list[dict]) -> None:
    """Write the rows to the history.csv in a run's `folder`."""
    text = io.StringIO()
    columns = dict.fromkeys(key for row in history for key in row)
    writer = csv.DictWriter(text, columns, restval=math.nan, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(folder / "history.csv", text.getvalue())
