"""Checkpoints: written whole or not at all, loaded without running code, described by themselves.

A checkpoint is a dict of plain values and tensors: the model's name in `MODELS`, its arguments and weights, and the
data set's classes, palette, coding and image size. `last_<run>.pt` also holds what training needs to go on.
"""

import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from common.datasets.segmentation_set import SegmentationSet
from common.errors import UserError
from common.files import atomic, load_tensors
from common.models import MODELS, build, name_of
from common.run import Run

FORMAT = 1  # raise it when an older program could not read what is written
KEYS = {"format", "run", "model", "arguments", "weights", "dataset", "classes", "palette", "coding", "image_size"}


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
    if not isinstance(contents, dict) or not contents.keys() >= KEYS:
        raise UserError(f"{path} is no checkpoint of this project; get another")
    if contents["format"] > FORMAT:
        raise UserError(f"{path} has format {contents['format']}, and this version reads up to {FORMAT}; update it")
    return contents


def load_model(path: Path) -> tuple[nn.Module, dict]:
    """Return the model in the checkpoint at `path`, in eval mode on the CPU, and the checkpoint's contents.

    Raises:
        UserError: as `load`; a model that this version does not know, or cannot build as described.
    """
    contents = load(path)
    if contents["model"] not in MODELS:
        raise UserError(f"{path} holds a model {contents['model']!r}; this version knows {', '.join(MODELS)}")
    model = build(contents["model"], **contents["arguments"])
    load_weights(model, contents, path)
    return model.eval(), contents


def load_weights(model: nn.Module, contents: dict, path: Path) -> None:
    """Copy the weights of a checkpoint into `model`.

    Raises:
        UserError: it holds another model, one for another number of classes, or tensors of other names or shapes.
    """
    found, expected = (contents["model"], contents["arguments"]), (name_of(model), model.arguments)
    if found != expected:
        raise UserError(
            f"{path} holds {_say(*found)}, but this run builds {_say(*expected)}; "
            "give the flags that it was trained with, or another --name"
        )
    try:
        model.load_state_dict(contents["weights"])
    except RuntimeError as error:  # torch lists what is missing or has another shape, a line each
        raise UserError(f"{path} does not fit {contents['model']}: {' '.join(str(error).split()):.300}") from None


def _say(model: str, arguments: dict) -> str:
    return f"{model}({', '.join(f'{key}={value}' for key, value in arguments.items())})"
