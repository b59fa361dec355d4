"""Whether what a file holds is what a training writes: checkpoints come from anywhere.

Nothing in a file runs code (`files.load_tensors`), but torch crashes at an optimizer's state of other shapes, and what
predicts takes classes, colours and sizes for what they should be.
"""

import copy
import math

import torch
from torch import nn

from common.datasets.segmentation_set import VOID
from common.run import NOT_IN_NAMES

LARGEST = 1 << 14  # pixels of a side that a network is shown
COLUMNS = ("epoch", "stage", "lr", "train_loss", "train_miou", "train_pixel_accuracy", "val_loss", "val_miou")
COLUMNS += ("val_pixel_accuracy", "train_images_per_second", "seconds")  # of history.csv


def odd_field(contents: dict) -> str:
    """Return the first field of a checkpoint that is not as `describe` and `keep` write it, or ""."""
    run, classes, coding, arguments = (contents.get(key) for key in ("run", "classes", "coding", "arguments"))
    palette, size, rows = (contents.get(key) for key in ("palette", "image_size", "history"))
    as_written = {
        "run": lambda: is_text(run, 200) and not set(run) & set(NOT_IN_NAMES) and run[0] != ".",
        "dataset": lambda: isinstance(contents["dataset"], str),
        "classes": lambda: type(classes) is list and 2 <= len(classes) <= VOID and all(map(is_text, classes)),
        "palette": lambda: len(palette) == len(classes) and all(_are_whole(color, 3, 0, 255) for color in palette),
        "image_size": lambda: _are_whole(size, 2, 1, LARGEST),
        "coding": lambda: coding is None or _is_coding(coding, len(classes)),
        "scores": lambda: _is_row(contents["scores"]),
        "model": lambda: is_text(contents["model"], 100),
        "arguments": lambda: len(arguments) <= 16 and all(is_text(k) and _is_setting(v) for k, v in arguments.items()),
        "weights": lambda: all(is_text(key) and is_dense(w) for key, w in contents["weights"].items()),
        "stage": lambda: is_whole(contents.get("stage", 1), 1, 1 << 31),
        "history": lambda: (
            rows is None or (type(rows) is list and all(_is_row(row) and row.keys() == {*COLUMNS} for row in rows))
        ),
    }
    for field, check in as_written.items():
        try:
            if not check():
                return field
        except (TypeError, AttributeError, KeyError):  # of another kind altogether, or missing
            return field
    return ""


def is_whole(value: object, least: int, most: int) -> bool:
    """Return whether `value` is an int from `least` to `most`; a bool is none."""
    return type(value) is int and least <= value <= most


def is_text(value: object, most: int = 1000) -> bool:
    """Return whether `value` is a str of 1 to `most` letters, none of which would disturb a terminal."""
    return isinstance(value, str) and 0 < len(value) <= most and value.isprintable()


def _are_whole(values: object, count: int, least: int, most: int) -> bool:
    return type(values) is list and len(values) == count and all(is_whole(value, least, most) for value in values)


def _is_setting(value: object) -> bool:
    """Return whether `value` can be an argument of a model; none is so large that building it would take long."""
    return is_text(value, 100) or value is None or type(value) in (bool, float) or is_whole(value, 0, 1024)


def _is_row(row: dict) -> bool:
    return all(
        is_text(key, 100) and (type(value) is float or is_whole(value, 0, 1 << 53)) for key, value in row.items()
    )


def _is_coding(coding: dict, classes: int) -> bool:
    """Return whether `coding` makes a `Coding` for so many classes."""
    targets = {*range(classes), VOID}
    tables = [*coding["numbers"].items(), *coding["colors"].items()]
    codes = (is_whole(code, 0, 1 << 32) and type(to) is int and to in targets for code, to in tables)
    return len(coding) == 3 and type(coding["palettes_are_colors"]) is bool and all(codes)


def is_dense(weight: torch.Tensor) -> bool:
    """Return whether `weight` is a tensor whose numbers are all there, as numbers."""
    if weight.layout is not torch.strided or weight.device.type != "cpu":
        return False
    stored = weight.untyped_storage().nbytes() // weight.element_size()
    whole = weight.storage_offset() + weight.numel() <= stored  # one number may stand for many
    return whole and not (weight.is_quantized or weight.is_nested or weight.is_complex())


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
            if not is_dense(value) or value.dtype != like[key].dtype or list(value.shape) != of_shape:
                return False
            if key == "step" and not 0 <= value < math.inf:
                return False
    return True
