"""What a run leaves on the disk to go on from, and how it goes on."""

import copy
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


def keep(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None,
    stage: int,
    history: list[dict],
    data: SegmentationSet,
    run: Run,
    part: dict | None = None,
) -> None:
    """Write what the last epoch left: history.csv, last_<run>.pt, and best_<run>.pt if it is the best.

    A kill in between loses nothing: `resume` makes the others from last_<run>.pt.

    Args:
        part: of an epoch that is not finished, what its first batches came to: "sums" (batches, 2) float, loss and
            weight of each, "counts", those of the confusion matrix, and "lr", the rate at its start. Only last_<run>.pt
            is written.
    """
    contents = checkpoint.describe(model, data, run, history)
    state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler and scheduler.state_dict(), "history": history}
    checkpoint.save(run.last_checkpoint, contents | state | {"stage": stage, "part": part})
    if part:
        return
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
) -> tuple[list[dict], dict | None]:
    """Put the contents of last_<run>.pt into model, optimizer and scheduler; return its history and part (see `keep`).

    Raises:
        UserError: it is of another model or optimizer, or was trained with other parameters than this run has.
    """
    path = run.last_checkpoint
    if not {"optimizer", "scheduler", "stage", "history", "part", "parameters", "seed"} <= contents.keys():
        raise UserError(f"{path} holds a model, but not the state of its training; it cannot be resumed")
    if not isinstance(contents["parameters"], dict) or not all(map(checkpoint.is_text, contents["parameters"])):
        raise UserError(f"{path} is damaged: its parameters are no training's; it cannot be resumed")
    checkpoint.load_weights(model, contents, path)
    theirs, ours = contents["parameters"] | {"seed": contents["seed"]}, run.parameters | {"seed": run.seed}
    scheduled = scheduler and not isinstance(scheduler, ReduceLROnPlateau)  # drawn over all epochs
    for key in sorted(theirs.keys() | ours.keys()):
        free = key == "patience" or (key.endswith("epochs") and not scheduled)
        if not fits(theirs.get(key), ours.get(key)) and not free:
            raise UserError(
                f"{path} was trained with {key} {theirs.get(key)!r:.100}, not {ours.get(key)!r:.100}; "
                "give the same flags"
            )
    if not fits(contents["scheduler"], scheduler and scheduler.state_dict()):
        raise UserError(f"{path} was trained with another schedule; it cannot be resumed")
    if not fits_optimizer(contents["optimizer"], optimizer):
        raise UserError(f"{path} was trained with another optimizer, or other settings of it; it cannot be resumed")
    if not (contents["part"] is None or is_part(contents["part"], data.num_classes)):
        raise UserError(f"{path} is damaged: what it holds of an unfinished epoch is none; it cannot be resumed")
    optimizer.load_state_dict(contents["optimizer"])
    if scheduler:
        scheduler.load_state_dict(contents["scheduler"])
    history, part = contents["history"], contents["part"]
    if run.rank == 0 and history:
        write_history(history, run)
    if run.rank == 0 and history and not part and best_row(history) is history[-1]:
        checkpoint.save(run.best_checkpoint, checkpoint.describe(model, data, run, history))
    run.wait()
    if history and not run.best_checkpoint.exists():
        raise UserError(f"{run.best_checkpoint} is missing; without it, the best epoch so far is lost")
    batches = f" and {len(part['sums'])} batches" if part else ""
    run.print(f"resuming {path} after epoch {len(history)}{batches}")
    return history, part


# What changes while an optimizer and a schedule are at work, and the number that it stays below; the rest is settings.
MOVES = {"lr": math.inf, "_last_lr": math.inf, "momentum": 1, "betas": 1, "last_epoch": 1 << 31, "_step_count": 1 << 31}
MOVES |= {"num_bad_epochs": 1 << 31, "cooldown_counter": 1 << 31, "T_cur": 1 << 31, "T_i": 1 << 31}


def fits(theirs: object, ours: object, key: str = "") -> bool:
    """Return whether `theirs`, from a file, can take the place of `ours`: the same, but for numbers that move on."""
    if isinstance(ours, dict):
        return (
            isinstance(theirs, dict) and theirs.keys() == ours.keys() and all(fits(theirs[k], ours[k], k) for k in ours)
        )
    if isinstance(ours, list | tuple):
        return (
            type(theirs) is type(ours) and len(theirs) == len(ours) and all(map(fits, theirs, ours, [key] * len(ours)))
        )
    if key in MOVES:
        return type(theirs) in (int, float) and -1 < theirs < MOVES[key]
    if key == "best":  # of ReduceLROnPlateau, infinite at first
        return type(theirs) is float
    numbers = {type(theirs), type(ours)} <= {int, float}
    return (numbers or type(theirs) is type(ours)) and theirs == ours


def fits_optimizer(theirs: dict, optimizer: torch.optim.Optimizer) -> bool:
    """Return whether `theirs`, from a file, is a state that `optimizer` can be in; torch would crash at others."""
    ours = optimizer.state_dict()
    if not isinstance(theirs, dict) or not fits(theirs.get("param_groups"), ours["param_groups"]):
        return False
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    # A copy takes a step with parameters of two numbers along each dimension: that shows what a state consists of.
    small = {id(p): nn.Parameter(p.new_zeros([2] * p.ndim)) for p in parameters}
    trial = copy.deepcopy(optimizer, dict(small))
    for p in small.values():
        p.grad = torch.zeros_like(p)
    trial.step()
    likes = [trial.state[small[id(p)]] for p in parameters]
    states = theirs.get("state")
    return isinstance(states, dict) and all(
        type(i) is int and 0 <= i < len(likes) and fits_state(state, likes[i], parameters[i].shape)
        for i, state in states.items()
    )


def fits_state(theirs: dict, like: dict, shape: torch.Size) -> bool:
    """Return whether `theirs` is what an optimizer notes of a parameter; `like` is the same of the small one."""
    if not isinstance(theirs, dict) or theirs.keys() != like.keys():
        return False
    for key, value in theirs.items():
        if type(value) is not type(like[key]):
            return False
        if isinstance(value, torch.Tensor):
            small = like[key].shape
            of_shape = [n if two == 2 else two for n, two in zip(shape, small, strict=True)] if small else []
            if not checkpoint.is_dense(value) or value.dtype != like[key].dtype or list(value.shape) != of_shape:
                return False
            if key == "step" and not 0 <= value < math.inf:
                return False
    return True


def is_part(part: dict, classes: int) -> bool:
    """Return whether `part` is as `keep` describes it."""
    if not isinstance(part, dict) or part.keys() != {"sums", "counts", "lr"} or not fits(part["lr"], 0.0, "lr"):
        return False
    sums, counts = part["sums"], part["counts"]
    tensors = all(isinstance(t, torch.Tensor) and checkpoint.is_dense(t) for t in (sums, counts))
    if not tensors or sums.ndim != 2 or not len(sums) or sums.shape[1] != 2 or sums.dtype != torch.float32:
        return False
    return counts.shape == (classes + 1, classes) and counts.dtype == torch.int64 and bool(sums.isfinite().all())


def best_row(history: list[dict]) -> dict:
    """Return the row of the first epoch with the best validation mIoU (NaN counts as the worst)."""
    return max(history, key=lambda row: -1 if math.isnan(row["val_miou"]) else row["val_miou"])
