"""Checkpoints: written whole or not at all, loaded without running code, described by themselves.

A checkpoint is a dict of plain values and tensors: the model's name in `MODELS`, its arguments and weights, and the
data set's classes, palette, label map and image size. `last_<run>.pt` also holds what training needs to go on.
"""

import inspect
import platform
import shutil
import sys
import zlib
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from common.datasets.segmentation_set import SegmentationSet
from common.experiment import code_of, differences, fingerprint, may_differ, numbered_name, plain
from common.history import kept_row, last_epoch, write_history
from common.models import MODELS, build, name_of
from common.run import Run
from common.system.distributed import barrier
from common.system.errors import UserError
from common.system.files import atomic, load_tensors, read_json, write_json, write_text

FORMAT = 2  # raise it when an older program could not read what is written
KEYS = {"format", "run", "model", "arguments", "weights", "dataset", "classes", "palette", "label_map", "image_size"}


def describe(model: nn.Module, data: SegmentationSet, run: Run, history: list[dict]) -> dict:
    """Return the contents of a checkpoint that can predict: the model, and what its output means."""
    return {
        "format": FORMAT,
        "run": run.name,
        "experiment": run.experiment,
        "model": name_of(model),
        "arguments": getattr(model, "arguments", {}),  # a model that is written in a script may have none
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


def describe_run(run: Run) -> dict:
    """Return the contents of config.json: the experiment, where and how it runs, and by which versions."""
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    settings = {field.name: plain(getattr(run, field.name)) for field in fields(run) if field.init}
    return run.config | {"run": settings, "command": sys.argv, "versions": versions}


def record_run(run: Run, data: SegmentationSet) -> None:
    """Write what is run, and on what images, to the run's folder, and the script as it is."""
    write_json(run.folder / "config.json", describe_run(run))
    write_json(run.folder / "splits.json", data.splits)
    script = run.folder / f"{run.script}.py"
    if run.resume and script.exists() and script.read_text(encoding="utf-8") != run.script_text:
        script = run.folder / f"{run.script}-resumed.py"  # beside the one that the run began with
    write_text(script, run.script_text)


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


def find_checkpoint(given: str) -> Path:
    """Return the checkpoint to use: the one that is given, or the newest best_*.pt in the current folder."""
    if given:
        return Path(given)
    found = sorted(Path().glob("best_*.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(f"no best_*.pt in {Path.cwd()}, which a training leaves; name one with --checkpoint")
    if len(found) > 1:
        print(f"{found[-1]} is the newest of {len(found)} models here; --checkpoint names another")
    return found[-1]


def load_model(path: Path) -> tuple[nn.Module, dict]:
    """Return the model in the checkpoint at `path`, in eval mode on the CPU, and the checkpoint's contents.

    Raises:
        UserError: as `load`; a model that this version does not know, or cannot build as described.
    """
    contents = load(path)
    if contents["model"] not in MODELS:
        raise UserError(
            f"{path} holds {contents['model']}, which is not in MODELS in common/models/__init__.py: only the script "
            "that has it can use it"
        )
    try:
        model = build(contents["model"], **contents["arguments"])
    except TypeError as error:  # the class has been edited since
        raise UserError(f"{path}: {contents['model']} is no longer built from its arguments: {error}") from None
    load_weights(model, contents, path)
    return model.eval(), contents


def load_weights(model: nn.Module, contents: dict, path: Path) -> None:
    """Copy the weights of a checkpoint into `model`.

    Raises:
        UserError: it holds another model, one for another number of classes, or tensors of other names or shapes.
    """
    found, expected = (contents["model"], contents["arguments"]), (name_of(model), getattr(model, "arguments", {}))
    if found != expected:
        raise UserError(
            f"{path} holds {_say(*found)}, but this run builds {_say(*expected)}; "
            "give the flags that it was trained with, or another --name"
        )
    try:
        model.load_state_dict(contents["weights"])
    except RuntimeError as error:  # torch lists what is missing or has another shape, a line each
        raise UserError(f"{path} does not fit {contents['model']}: {' '.join(str(error).split()):.300}") from None


def start_from(model: nn.Module, path: Path) -> str:
    """Copy into `model` what fits it of the weights in the checkpoint at `path`, by name and shape.

    Returns:
        What was copied and what was not, in words.

    Raises:
        UserError: as `load`; nothing fits.
    """
    found, own = load(path)["weights"], model.state_dict()
    fitting = {name: tensor for name, tensor in found.items() if name in own and tensor.shape == own[name].shape}
    if not fitting:
        raise UserError(f"--init {path}: none of its weights fits {name_of(model)}; give a checkpoint of that network")
    model.load_state_dict(fitting, strict=False)
    others = [name for name in own if name not in fitting]
    more = f", but not {', '.join(others[:4])}{f' and {len(others) - 4} more' * (len(others) > 4)}" if others else ""
    return f"starting from {path}: {len(fitting)} of {len(own)} tensors{more}"


def _say(model: str, arguments: dict) -> str:
    return f"{model}({', '.join(f'{key}={value}' for key, value in arguments.items())})"


def source_of(model: nn.Module) -> str:
    """Return a fingerprint of the file that the model's class is written in; "" if it is in none."""
    try:
        return fingerprint(code_of(Path(inspect.getfile(type(model))).read_text(encoding="utf-8")))
    except (TypeError, OSError):  # typed in a notebook
        return ""


def settle_name(run: Run, model: nn.Module, sets: Sequence[SegmentationSet]) -> None:
    """Give `run` the name that is free for it, now that model and images are known; say what may surprise later.

    Raises:
        UserError: a run that is resumed began with other images, or other splits of them.
    """
    masks = [zlib.crc32(part.masks.numpy()) for part in sets]  # a label that was corrected makes other data
    run.fingerprints |= {"model": source_of(model), "images": fingerprint(repr((sets[0].splits, masks)))}
    recorded = read_json(run.folder / "config.json").get("fingerprints", {})
    if run.resume and recorded.get("images", run.fingerprints["images"]) != run.fingerprints["images"]:
        raise UserError(
            f"the images, their masks or their splits are not those with which {run.name} began "
            f"({run.folder / 'splits.json'}); bring them back, or start over without --resume"
        )
    if not run.resume:
        before, (run.name, beside) = run.name, numbered_name(run.base, run.config)
        if run.name != before:
            run.print(f"this run is called {run.name}: {beside}")
    if name_of(model) not in MODELS:
        run.print(
            f"{name_of(model)} is not in MODELS: predict.py, report.py and the notebook will not be able to load this "
            "run; if they are to, register the model first (docs/your-own.md)"
        )


class Checkpointer:
    """Owns what a training keeps and goes on from: last_<run>.pt, best_<run>.pt and history.csv.

    Args:
        data: the validation set, which says what the model's output means.
        previous: the history of the stages before, if training has several.

    Attributes:
        stage: number of this stage, from 1.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: LRScheduler | None,
        data: SegmentationSet,
        train_set: SegmentationSet,
        run: Run,
        previous: Sequence[dict] = (),
    ):
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.data, self.train_set, self.run, self.previous = data, train_set, run, list(previous)
        self.stage = previous[-1]["stage"] + 1 if previous else 1
        self.recorded = bool(previous)  # whether config.json is of this run; it is written with the first epoch

    def restore(self) -> tuple[list[dict], bool]:
        """Return the history to go on from, and whether this stage is finished.

        With `--resume`, model, optimizer and scheduler are what they were after the history's last epoch.

        Raises:
            UserError: the checkpoint is of another model or optimizer, or was trained with other parameters.
        """
        history, finished = self._load_last() if self.run.resume else (self.previous, False)
        if not self.previous and not finished:
            settle_name(self.run, self.model, [self.data, self.train_set])
            barrier()  # until all have looked
        return history, finished

    def _load_last(self) -> tuple[list[dict], bool]:
        """Return what `restore` does, from last_<run>.pt."""
        run, path = self.run, self.run.last_checkpoint
        contents = load(path)
        if contents["stage"] < self.stage:
            return self.previous, False
        if contents["stage"] > self.stage:
            run.print(f"stage {self.stage} is finished")
            load_weights(self.model, load(run.best_checkpoint), run.best_checkpoint)
            return [row for row in contents["history"] if row["stage"] <= self.stage], True
        load_weights(self.model, contents, path)
        self._check_settings(contents)
        self.optimizer.load_state_dict(contents["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(contents["scheduler"])
        run.scaler.load_state_dict(contents["scaler"])
        history = contents["history"]
        self._write_best_and_history(history)
        barrier()
        if not run.best_checkpoint.exists():
            raise UserError(f"{run.best_checkpoint} is missing; without it, the epoch that was kept is lost")
        run.print(f"resuming {path} after epoch {last_epoch(history)}")
        return history, False

    def save(self, history: list[dict]) -> None:
        """Write what the last epoch of `history` left; the first time, what is run and on what."""
        if self.run.rank == 0 and not self.recorded:
            self.recorded = True
            record_run(self.run, self.data)
            for path in self.run.folder.glob("test*.json"):  # of an equal run before
                path.unlink()
        if self.run.rank == 0:
            state = {"optimizer": self.optimizer.state_dict(), "history": history, "stage": self.stage}
            state["scheduler"] = self.scheduler and self.scheduler.state_dict()
            state["scaler"] = self.run.scaler.state_dict()
            save(self.run.last_checkpoint, describe(self.model, self.data, self.run, history) | state)
        self._write_best_and_history(history)  # after a kill in between, restore does it

    def load_best(self, history: list[dict]) -> None:
        """Give the model the weights of the epoch that is kept."""
        barrier()  # until the main process has written them
        contents = load(self.run.best_checkpoint)
        if contents["epoch"] != kept_row(history)["epoch"]:
            raise UserError(f"{self.run.best_checkpoint} is not of the epoch that this run kept; was it replaced?")
        load_weights(self.model, contents, self.run.best_checkpoint)

    def _write_best_and_history(self, history: list[dict]) -> None:
        if self.run.rank > 0:
            return
        if kept_row(history) is history[-1]:
            save(self.run.best_checkpoint, describe(self.model, self.data, self.run, history))
        write_history(self.run.folder, history)

    def _check_settings(self, contents: dict) -> None:
        """Raise UserError where the checkpoint was trained with other parameters, schedule or optimizer."""
        path, scheduler = self.run.last_checkpoint, self.scheduler
        changes = differences(contents, {"experiment": self.run.experiment, "fingerprints": {}})
        if not scheduler or isinstance(scheduler, ReduceLROnPlateau):  # others are drawn over all epochs
            changes = {key: text for key, text in changes.items() if not may_differ(key)}
        changes.pop("patience", None)
        if changes:
            raise UserError(
                f"{path} was trained with other settings: {', '.join(changes.values())}; give the same flags"
            )
        if (contents["scheduler"] or {}).keys() != (self.scheduler.state_dict() if self.scheduler else {}).keys():
            raise UserError(f"{path} was trained with another schedule; it cannot be resumed")
        if settings_of(contents["optimizer"]) != settings_of(self.optimizer.state_dict()):
            raise UserError(f"{path} was trained with another optimizer, or other settings of it; it cannot be resumed")


def settings_of(state: dict) -> list[dict]:
    """Return an optimizer's settings from its state, but for the learning rates, which a schedule changes."""
    return [{key: value for key, value in group.items() if key != "lr"} for group in state["param_groups"]]
