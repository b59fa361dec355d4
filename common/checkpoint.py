"""Checkpoints: written whole or not at all, loaded without running code, described by themselves.

A checkpoint is a dict of plain values and tensors: the model's name in `MODELS`, its arguments and weights, and the
data set's classes, palette, coding and image size. `last_<run>.pt` also holds what training needs to go on.
"""

import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from common.datasets.segmentation_set import VOID, SegmentationSet
from common.errors import UserError
from common.files import atomic, load_tensors
from common.models import MODELS, build, name_of
from common.run import NOT_IN_NAMES, Run

FORMAT = 1  # raise it when an older program could not read what is written
LARGEST = 1 << 14  # pixels of a side that a network is shown
COLUMNS = ("epoch", "stage", "lr", "train_loss", "train_miou", "train_pixel_accuracy", "val_loss", "val_miou")
COLUMNS += ("val_pixel_accuracy", "train_images_per_second", "seconds")  # of history.csv


def describe(model: nn.Module, data: SegmentationSet, run: Run, history: list[dict]) -> dict:
    """Return the contents of a checkpoint that can predict: the model, and what its output means."""
    return {
        "format": FORMAT,
        "run": run.name,
        "parameters": run.parameters,
        "seed": run.seed,
        "model": name_of(model),
        "arguments": model.arguments,
        "weights": model.state_dict(),
        "dataset": data.dataset,
        "classes": list(data.classes),
        "palette": [list(color) for color in data.palette],
        "coding": data.coding and asdict(data.coding),
        "image_size": list(data.image_size),
        "epoch": len(history),
        "scores": history[-1] if history else {},  # the epoch's row of history.csv
        "torch": str(torch.__version__),
    }


def save(path: Path, contents: dict) -> None:
    """Write `contents` to `path` atomically.

    Raises:
        UserError: the disk is full, or the directory cannot be written.
    """
    with atomic(path) as temporary:
        try:
            torch.save(contents, temporary)
        except RuntimeError as error:  # torch's word for a write that failed
            free = shutil.disk_usage(temporary.parent).free >> 20
            raise OSError(f"the disk may be full ({free} MiB are free)") from error


def load(path: Path) -> dict:
    """Return the contents of the checkpoint at `path`, on the CPU. Nothing in the file is executed.

    Raises:
        UserError: the file is missing, damaged, no checkpoint, from a newer version, or holds more than plain data.
    """
    contents = load_tensors(path)
    if not isinstance(contents, dict) or not is_whole(contents.get("format"), 1, 1 << 31):
        raise UserError(f"{path} is no checkpoint of this project; get another")
    if contents["format"] > FORMAT:
        raise UserError(f"{path} has format {contents['format']}, and this version reads up to {FORMAT}; update it")
    if field := _odd_field(contents):
        raise UserError(
            f"{path} is no checkpoint of this project: in it, {field!r} is not what a training writes; get another"
        )
    return contents


def load_model(path: Path) -> tuple[nn.Module, dict]:
    """Return the model in the checkpoint at `path`, in eval mode on the CPU, and the checkpoint's contents.

    Raises:
        UserError: as `load`; a model that this version does not know, or cannot build as described.
    """
    contents = load(path)
    if contents["model"] not in MODELS:
        raise UserError(f"{path} holds a model {contents['model']!r}; this version knows {', '.join(MODELS)}")
    try:  # whatever the file says, nothing is downloaded and no other file is opened
        model = build(contents["model"], **contents["arguments"] | {"pretrained": False, "encoder_weights": None})
    except Exception:  # which one depends on what is wrong with the arguments
        model = f"{contents['model']} with the arguments {contents['arguments']!r:.100}"
        raise UserError(f"{path} holds a {model}, which this version cannot build") from None
    load_weights(model, contents, path)
    return model.eval(), contents


def load_weights(model: nn.Module, contents: dict, path: Path) -> None:
    """Copy the weights of a checkpoint into `model`.

    Raises:
        UserError: it holds another model, one for another number of classes, or tensors of other names or shapes.
    """
    theirs, ours = (contents["model"], contents["arguments"]), (name_of(model), model.arguments)
    if theirs != ours:
        raise UserError(
            f"{path} holds {_say(*theirs)}, but this run builds {_say(*ours)}; "
            "give the flags that it was trained with, or another --name"
        )
    theirs, ours = _shapes(contents["weights"]), _shapes(model.state_dict())
    different = [
        f"{key} is {theirs.get(key, 'missing')}, not {ours.get(key, 'missing')}"
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key) != ours.get(key)
    ]
    if different:
        more = f"; and {len(different) - 3} more" if len(different) > 3 else ""
        raise UserError(f"{path} does not fit {contents['model']}: {'; '.join(different[:3])}{more}")
    model.load_state_dict(dict(contents["weights"]))  # without what else an OrderedDict may carry


def _odd_field(contents: dict) -> str:
    """Return the first field of a checkpoint that is not as `describe` and `keep` in resuming.py write it, or ""."""
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


def _shapes(weights: dict) -> dict[str, str]:
    """Return the shape of each tensor, as text: 64x3x7x7."""
    return {key: "x".join(map(str, weight.shape)) or "()" for key, weight in weights.items()}


def _say(model: str, arguments: dict) -> str:
    return f"{model}({', '.join(f'{key}={value}' for key, value in arguments.items())})"
