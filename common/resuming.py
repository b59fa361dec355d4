"""What a run leaves on the disk to go on from, and how it goes on."""

import csv
import io
import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from common import checkpoint
from common.datasets.segmentation_set import SegmentationSet
from common.errors import UserError
from common.files import write_text
from common.run import Run
from common.system.distributed import barrier


def keep(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None,
    stage: int,
    history: list[dict],
    data: SegmentationSet,
    run: Run,
) -> None:
    """Write what the last epoch left: history.csv, last_<run>.pt, and best_<run>.pt if it is the best.

    A kill in between loses nothing: `resume` makes the others from last_<run>.pt.
    """
    contents = checkpoint.describe(model, data, run, history)
    state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler and scheduler.state_dict(), "history": history}
    checkpoint.save(run.last_checkpoint, contents | state | {"stage": stage})
    if best_row(history) is history[-1]:
        checkpoint.save(run.best_checkpoint, contents)
    write_history(history, run)


def write_history(history: list[dict], run: Run) -> None:
    """Write history.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, history[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(run.folder / "history.csv", text.getvalue())


def resume(
    contents: dict,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None,
    data: SegmentationSet,
    run: Run,
) -> list[dict]:
    """Put the contents of last_<run>.pt into model, optimizer and scheduler; return its history.

    Raises:
        UserError: it is of another model or optimizer, or was trained with other parameters than this run has.
    """
    path = run.last_checkpoint
    if not {"optimizer", "scheduler", "stage", "history", "parameters", "seed"} <= contents.keys():
        raise UserError(f"{path} holds a model, but not the state of its training; it cannot be resumed")
    checkpoint.load_weights(model, contents, path)
    found, expected = contents["parameters"] | {"seed": contents["seed"]}, run.parameters | {"seed": run.seed}
    scheduled = scheduler and not isinstance(scheduler, ReduceLROnPlateau)  # drawn over all epochs
    for key in sorted(found.keys() | expected.keys()):
        free = key == "patience" or (key.endswith("epochs") and not scheduled)
        if found.get(key) != expected.get(key) and not free:
            raise UserError(
                f"{path} was trained with {key} {found.get(key)!r}, not {expected.get(key)!r}; give the same flags"
            )
    if (contents["scheduler"] or {}).keys() != (scheduler.state_dict() if scheduler else {}).keys():
        raise UserError(f"{path} was trained with another schedule; it cannot be resumed")
    if settings_of(contents["optimizer"]) != settings_of(optimizer.state_dict()):
        raise UserError(f"{path} was trained with another optimizer, or other settings of it; it cannot be resumed")
    optimizer.load_state_dict(contents["optimizer"])
    if scheduler:
        scheduler.load_state_dict(contents["scheduler"])
    history = contents["history"]
    if run.rank == 0 and history:
        write_history(history, run)
    if run.rank == 0 and history and best_row(history) is history[-1]:
        checkpoint.save(run.best_checkpoint, checkpoint.describe(model, data, run, history))
    barrier()
    if history and not run.best_checkpoint.exists():
        raise UserError(f"{run.best_checkpoint} is missing; without it, the best epoch so far is lost")
    run.print(f"resuming {path} after epoch {len(history)}")
    return history


def settings_of(state: dict) -> list[dict]:
    """Return an optimizer's settings from its state, but for the learning rates, which a schedule changes."""
    return [{key: value for key, value in group.items() if key != "lr"} for group in state["param_groups"]]


def best_row(history: list[dict]) -> dict:
    """Return the row of the first epoch with the best validation mIoU (NaN counts as the worst)."""
    return max(history, key=lambda row: -1 if math.isnan(row["val_miou"]) else row["val_miou"])
