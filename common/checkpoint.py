"""Save and load checkpoints. Writing is atomic, and loading never runs code from the file.

A checkpoint is a dict of plain values and tensors: the model's name in `MODELS`, its arguments and weights, and the
data set's classes, palette, label map and image size. `last.pt` also holds the state of the training.
"""

import os
import platform
import shutil
import sys
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from common.datasets.segmentation_set import SegmentationSet
from common.history import kept_row, last_epoch, write_history
from common.models import MODELS, build, name_of
from common.run import JOB, Run, differences, plain
from common.system.distributed import barrier
from common.system.errors import UserError
from common.system.files import atomic, load_tensors, write_json, write_text

FORMAT = 2  # increase it when older versions cannot read new files
KEYS = {"format", "run", "model", "arguments", "weights", "dataset", "classes", "palette", "label_map", "image_size"}


def describe(model: nn.Module, data: SegmentationSet, run: Run, history: list[dict]) -> dict:
    """Return the contents of a checkpoint that is enough to predict: the model and its classes."""
    return {
        "format": FORMAT,
        "run": run.name,
        "experiment": run.settings,
        "model": name_of(model),
        "arguments": getattr(model, "arguments", {}),  # a model class in a script may have none
        "weights": model.state_dict(),
        "dataset": data.dataset,
        "classes": list(data.classes),
        "palette": [list(color) for color in data.palette],
        "label_map": data.label_map and asdict(data.label_map),
        "image_size": list(data.image_size),
        "epoch": last_epoch(history),
        "scores": history[-1] if history else {},  # the epoch's row of history.csv
        "torch": str(torch.__version__),
    }


def record_run(run: Run, model: nn.Module, data: SegmentationSet) -> None:
    """Write config.json, splits.json and a copy of the script to the run's folder."""
    settings = {field.name: plain(getattr(run, field.name)) for field in fields(run) if field.init}
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    config = {"experiment": run.settings, "run": settings, "command": sys.argv, "versions": versions}
    config["job"] = os.environ.get(JOB)
    write_json(run.folder / "config.json", config)
    write_json(run.folder / "splits.json", data.splits)
    script = run.folder / f"{run.script}.py"
    if script.exists() and script.read_text(encoding="utf-8") != run.script_text:
        script = run.folder / f"{run.script}-resumed.py"
        run.print(f"the script has changed since {run.name} began; the new version is {script}")
    write_text(script, run.script_text)
    if name_of(model) not in MODELS:
        run.print(
            f"{name_of(model)} is not in MODELS, so tools.predict, tools.report and the notebook cannot load this run; "
            "docs/your-own.md shows how to register a model"
        )


def save(path: Path, contents: dict) -> None:
    """Write `contents` to `path` atomically.

    Raises:
        UserError: the disk is full, or the directory cannot be written.
    """
    with atomic(path) as temporary:
        try:
            torch.save(contents, temporary)
        except RuntimeError as error:  # torch raises it for a failed write
            free = shutil.disk_usage(temporary.parent).free >> 20
            raise OSError(f"the disk may be full ({free} MiB are free)") from error


def load(path: Path) -> dict:
    """Return the contents of the checkpoint at `path`, on the CPU. Nothing in the file is executed.

    Raises:
        UserError: the file is missing, damaged, not a checkpoint, from a newer version, or holds more than plain data.
    """
    contents = load_tensors(path)
    if not isinstance(contents, dict) or not contents.keys() >= KEYS:
        raise UserError(f"{path} is not a checkpoint of this project; choose another file")
    if contents["format"] > FORMAT:
        raise UserError(
            f"{path} has format {contents['format']}, but this version reads formats up to {FORMAT}; "
            "update this project to read it"
        )
    return contents


def find_checkpoint(given: str) -> Path:
    """Return the path `given`, or else the newest best_*.pt in the current folder."""
    if given:
        return Path(given)
    found = sorted(Path().glob("best_*.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(f"no best_*.pt in {Path.cwd()}; name one with --checkpoint, or train a model first")
    if len(found) > 1:
        print(f"{found[-1]} is the newest of {len(found)} models here; --checkpoint names another")
    return found[-1]


def load_model(path: Path) -> tuple[nn.Module, dict]:
    """Return the model in the checkpoint at `path`, in eval mode on the CPU, and the checkpoint's contents.

    Raises:
        UserError: as in `load`; this version does not know the model, or cannot build it from its arguments.
    """
    contents = load(path)
    if contents["model"] not in MODELS:
        raise UserError(
            f"{path} holds {contents['model']}, which is not in MODELS in common/models/__init__.py: only its own "
            "script can use it"
        )
    try:
        model = build(contents["model"], **contents["arguments"])
    except TypeError as error:  # the class was edited after the training
        raise UserError(f"{path}: {contents['model']} no longer takes these arguments: {error}") from None
    load_weights(model, contents, path)
    return model.eval(), contents


def load_weights(model: nn.Module, contents: dict, path: Path) -> None:
    """Copy the weights of a checkpoint into `model`.

    Raises:
        UserError: model class, number of classes, tensor names or shapes differ.
    """
    found, expected = (contents["model"], contents["arguments"]), (name_of(model), getattr(model, "arguments", {}))
    if found != expected:
        raise UserError(
            f"{path} holds {_say(*found)}, but this run builds {_say(*expected)}; "
            "give the flags that it was trained with"
        )
    try:
        model.load_state_dict(contents["weights"])
    except RuntimeError as error:  # torch lists missing tensors and wrong shapes on many lines
        raise UserError(f"{path} does not fit {contents['model']}: {' '.join(str(error).split()):.300}") from None


def start_from(model: nn.Module, path: Path) -> str:
    """Copy the weights in the checkpoint at `path` that fit `model` by name and shape; return a summary in words.

    Raises:
        UserError: as in `load`; no weight fits.
    """
    found, own = load(path)["weights"], model.state_dict()
    fitting = {name: tensor for name, tensor in found.items() if name in own and tensor.shape == own[name].shape}
    if not fitting:
        raise UserError(f"--init {path}: none of its weights fits {name_of(model)}; give a checkpoint of this network")
    model.load_state_dict(fitting, strict=False)
    others = [name for name in own if name not in fitting]
    summary = f"starting from {path}: {len(fitting)} of {len(own)} tensors"
    if others:
        summary += f", but not {', '.join(others[:4])}"
    if len(others) > 4:
        summary += f" and {len(others) - 4} more"
    return summary


def _say(model: str, arguments: dict) -> str:
    return f"{model}({', '.join(f'{key}={value}' for key, value in arguments.items())})"


class Checkpointer:
    """Writes and restores the state of a training: last.pt in the run's folder, best_<run>.pt and history.csv.

    best_<run>.pt holds the weights of one epoch, the kept epoch: the best one or the last one, see `fit`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: LRScheduler | None,
        train_set: SegmentationSet,
        val_set: SegmentationSet,
        run: Run,
    ):
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.train_set, self.val_set, self.run, self.recorded = train_set, val_set, run, False

    def begin(self) -> list[dict]:
        """Load the weights that --init names, if any; return an empty history."""
        if self.run.init:
            self.run.print(start_from(self.model, Path(self.run.init)))
        return []

    def restore(self) -> list[dict]:
        """Load model, optimizer and scheduler from the last finished epoch; return the history.

        Raises:
            UserError: model, optimizer, schedule or data differ from those of the checkpoint.
        """
        path = self.run.last_checkpoint
        contents = load(path)
        load_weights(self.model, contents, path)
        self._check(contents)
        self.optimizer.load_state_dict(contents["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(contents["scheduler"])
        self.run.scaler.load_state_dict(contents["scaler"])
        history = contents["history"]
        self._write_results(history)  # after a kill between last.pt and best_*.pt, best_*.pt is out of date
        barrier()
        if not self.run.best_checkpoint.exists():
            sentence = "restore this file, which holds the kept epoch, or start over without --resume"
            raise UserError(f"{self.run.best_checkpoint} is missing; {sentence}")
        self.run.print(f"resuming {path} after epoch {last_epoch(history)}")
        return history

    def save(self, history: list[dict]) -> None:
        """Write the state after the last epoch of `history`; after the first epoch, also write the run's records."""
        if self.run.rank > 0:
            return
        if not self.recorded:
            record_run(self.run, self.model, self.val_set)
            self.recorded = True
        state = {"optimizer": self.optimizer.state_dict(), "history": history, "data": self._data()}
        state["scheduler"] = self.scheduler and self.scheduler.state_dict()
        state["scaler"] = self.run.scaler.state_dict()
        state["schedule"] = type(self.scheduler).__name__
        save(self.run.last_checkpoint, describe(self.model, self.val_set, self.run, history) | state)
        self._write_results(history)

    def load_kept(self, history: list[dict]) -> None:
        """Load the weights of the kept epoch into the model."""
        barrier()  # waits until the main process has written them
        contents = load(self.run.best_checkpoint)
        if contents["epoch"] != kept_row(history)["epoch"]:
            raise UserError(f"{self.run.best_checkpoint} is not from the epoch that this run kept; was it replaced?")
        load_weights(self.model, contents, self.run.best_checkpoint)

    def _write_results(self, history: list[dict]) -> None:
        """Write history.csv, and best_<run>.pt if the last epoch is the kept one."""
        if self.run.rank == 0:
            if kept_row(history) is history[-1]:
                save(self.run.best_checkpoint, describe(self.model, self.val_set, self.run, history))
            write_history(self.run.folder, history)

    def _data(self) -> list:
        return [self.val_set.splits, self.train_set.fingerprint, self.val_set.fingerprint]

    def _check(self, contents: dict) -> None:
        """Raise UserError unless the checkpoint was trained with the same data, optimizer and schedule."""
        path, schedule = self.run.last_checkpoint, type(self.scheduler).__name__
        if contents["data"] != self._data():
            raise UserError(
                f"{self.run.name} began with other images, masks or splits ({self.run.folder / 'splits.json'}); "
                "restore them, or start over without --resume"
            )
        changes = differences(contents["experiment"], self.run.settings)
        epochs = [key for key in changes if key.endswith("epochs")]
        if epochs and self.scheduler and not isinstance(self.scheduler, ReduceLROnPlateau):
            flag = f"--{epochs[0].replace('_', '-')} {contents['experiment'][epochs[0]]}"
            raise UserError(f"the schedule of {self.run.name} depends on the number of epochs; give {flag} again")
        if contents["schedule"] != schedule:
            raise UserError(f"{path} was trained with another schedule; it cannot be resumed")
        if settings_of(contents["optimizer"]) != settings_of(self.optimizer.state_dict()):
            raise UserError(
                f"{path} was trained with another optimizer or other optimizer settings; it cannot be resumed"
            )


def settings_of(state: dict) -> list[dict]:
    """Return an optimizer's settings from its state, without learning rates because schedules change them."""
    return [{key: value for key, value in group.items() if key != "lr"} for group in state["param_groups"]]
