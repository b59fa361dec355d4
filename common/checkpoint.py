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
from common.plausible import is_whole, odd_field
from common.run import Run

FORMAT = 1  # raise it when an older program could not read what is written


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
    if field := odd_field(contents):
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


def _shapes(weights: dict) -> dict[str, str]:
    """Return the shape of each tensor, as text: 64x3x7x7."""
    return {key: "x".join(map(str, weight.shape)) or "()" for key, weight in weights.items()}


def _say(model: str, arguments: dict) -> str:
    return f"{model}({', '.join(f'{key}={value}' for key, value in arguments.items())})"
