"""Settings, name and folder of a run."""

import atexit
import contextlib
import copy
import functools
import inspect
import os
import random
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from common.system.device import choose_device, choose_precision, keep_freed_memory
from common.system.distributed import all_gather, init_process_group
from common.system.errors import UserError
from common.system.files import check_writable, read_json

MINIMUM = {"epochs": 1, "batch_size": 1, "copies": 1}  # of other numbers: 0
MINIMUM |= dict.fromkeys(("crop_scale", "smallest_scale", "largest_scale"), 0.1)
JOB = "TORCHELASTIC_RUN_ID"  # id of the torchrun job; it stays the same after a restart
FILES = ("encoder_weights", "weights")  # parameters that hold a path of this machine: not part of a run's name
NOT_IN_NAMES = '/\\:*?"<>|$'  # characters with a meaning for file systems or shells


def experiment(main: Callable) -> Callable:
    """Decorate the `main` of a script: start its run, then call it.

    Inside `main`, `run` knows its device, its name and its folder. The arguments become part of the run's records.
    """
    signature = inspect.signature(main)

    @functools.wraps(main)
    def started(*args: object, **kwargs: object) -> object:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        parameters = {key: value for key, value in bound.arguments.items() if key != "run"}
        return main(**parameters, run=bound.arguments["run"].start(main, parameters))

    return started


@dataclass
class Run:
    """Settings that all experiments share. Each run has a folder, runs/<name>/."""

    name: str = ""  # name of the run; by default the script's name and the parameters that differ from their defaults
    seed: int = 0  # seed of the initial weights, the order of the images and their augmentation
    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps; auto takes a GPU if there is one
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"  # auto: bf16 if it is faster, fp16 on older GPUs
    data_root: Path = Path("data")  # folder that download.py filled
    cache_dir: Path = Path(".cache")  # folder for decoded images; nothing is written to the data folder
    resume: bool | str = False  # continue the newest run with these flags; --resume NAME may train a run longer
    init: str = ""  # start from the weights in this best_*.pt; weights of another shape are skipped
    fold: str = ""  # 2/5: the second of five parts is the test set; kitchen: the images in images/kitchen/ are
    compile: bool = False  # compile the model with torch.compile
    dry_run: bool = False  # show the data, the model, a batch, and the time and memory of a step, then stop
    tensorboard: bool = False  # write TensorBoard events to runs/<name>/

    script: str = field(default="", init=False)  # name of the script's file, without .py
    script_text: str = field(default="", init=False, repr=False)
    parameters: dict = field(default_factory=dict, init=False)  # main's arguments
    history: list = field(default_factory=list, init=False, repr=False)  # rows of history.csv, see common.history
    scaler: torch.amp.GradScaler | None = field(default=None, init=False)  # scales the loss in fp16
    rank: int = field(default=0, init=False)  # number of this process, 0 to world_size - 1; torchrun sets both
    world_size: int = field(default=1, init=False)

    def start(self, main: Callable, parameters: dict) -> "Run":
        """Return a copy of this run that is ready to train, with a folder of its own.

        Args:
            main: the function of the experiment.
            parameters: its arguments by name.

        Raises:
            UserError: a number is too small, the device is missing, a file cannot be written, nothing can be resumed.
        """
        run = self.prepared()
        run.script, run.parameters = Path(inspect.getfile(main)).stem, dict(parameters)
        run.script_text = Path(inspect.getfile(main)).read_text(encoding="utf-8")
        for key, value in {**parameters, "seed": self.seed}.items():
            if isinstance(value, int | float) and not value >= MINIMUM.get(key, 0):  # also refuses NaN
                raise UserError(f"--{key.replace('_', '-')} {value} must be at least {MINIMUM.get(key, 0)}")
        base = self.name or default_name(main, parameters, self)
        if set(base) & set(NOT_IN_NAMES) or base.startswith("."):
            raise UserError(
                f"--name {base} becomes a file name: do not begin it with a dot, or use any of {NOT_IN_NAMES}"
            )
        # After a process has died, torchrun repeats the same command.
        restarted = any(all_gather(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"))
        resumed = self.resume if isinstance(self.resume, str) else ""
        if not resumed and (self.resume or restarted):
            resumed = newest_run(base, of_job=not self.resume)
        if self.resume or resumed:
            run.name, run.resume = resumed, True
            run.check_resumed(base, auto=self.precision == "auto")
        else:
            run.name = base
            check_writable(run.best_checkpoint)
            check_writable(run.plot())
            if not self.dry_run:
                run.name = all_gather(claim_name(base) if run.rank == 0 else "")[0]
        if run.name != base and not run.resume:
            run.print(f"a run named {base} exists, so this one is named {run.name}")
        keep_freed_memory()
        torch.manual_seed(self.seed)
        np.random.seed(self.seed)
        random.seed(self.seed)
        run.print(f"{run.name}: {run.where()}")
        return run

    def prepared(self) -> "Run":
        """Return a copy with processes, device and precision set. This is enough to load data and to predict."""
        run = replace(self)
        run.world_size, run.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        run.device = choose_device(self.device)
        if run.device.type == "cuda":
            if run.world_size > 1:
                run.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(run.device)
        if run.world_size > 1:
            init_process_group(run.device)
        run.set_precision(all_gather(choose_precision(self.precision, run.device))[0])  # the same in all processes
        return run

    def set_precision(self, precision: str) -> None:
        """Compute in `precision`: "bf16", "fp16" or "fp32"."""
        self.precision = precision
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        # No TF32, which keeps 10 of fp32's 23 bits: someone who asks for fp32 gets fp32.
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        if precision == "fp16":  # GradScaler skips the first steps, and torch's schedulers warn about that
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")

    def check_resumed(self, base: str, auto: bool) -> None:
        """Check that the run of this name can be resumed with the present settings.

        Args:
            base: the name without a number, for the error.
            auto: use the precision of the earlier run.

        Raises:
            UserError: there is no such run, or a setting other than epochs and patience differs.
        """
        recorded = read_json(self.folder / "config.json").get("experiment")
        if not self.name or not recorded or not self.last_checkpoint.is_file():
            newest = sorted(Path("runs").glob("*/last.pt"), key=lambda path: path.stat().st_mtime, reverse=True)[:3]
            there = ", ".join(path.parent.name for path in newest) or "none"
            raise UserError(
                f"nothing to resume: {Path('runs', self.name or base)} has no last.pt (newest runs with one: {there}); "
                "give the same flags as the run, or name it: --resume NAME"
            )
        if auto:
            self.set_precision(recorded["precision"])
        changes = differences(recorded, self.settings)
        if changes := [text for key, text in changes.items() if key != "patience" and not key.endswith("epochs")]:
            raise UserError(f"{self.name} began with other settings: {', '.join(changes)}; give the same flags")

    def then(self, part: str) -> "Run":
        """Return a follow-up run, such as fine-tuning, with the same settings but its own name and folder."""
        run = copy.copy(self)
        run.name, run.init, run.history = f"{self.name}-{part}", "", []
        run.parameters = self.parameters | {"part": part}
        run.folder.mkdir(parents=True, exist_ok=True)
        written = [path.stat().st_mtime for path in (self.last_checkpoint, run.last_checkpoint) if path.is_file()]
        # A follow-up that is older than this run's checkpoint followed an earlier run.
        run.resume = bool(self.resume) and len(written) == 2 and written[0] <= written[1]
        run.print(f"{run.name}: follows {self.name}")
        return run

    @property
    def settings(self) -> dict:
        """All settings that can change a score, as JSON values: script, parameters, seed, precision."""
        about = {"script": self.script, "seed": self.seed, "precision": self.precision}
        about |= {key: value for key in ("init", "fold") if (value := getattr(self, key))}
        return about | plain(self.parameters)

    @property
    def folder(self) -> Path:
        """Folder of the run's records."""
        return Path("runs") / self.name

    @property
    def best_checkpoint(self) -> Path:
        """Model of the epoch that `fit` keeps."""
        return Path(f"best_{self.name}.pt")

    @property
    def last_checkpoint(self) -> Path:
        """State after the last finished epoch, to resume from."""
        return self.folder / "last.pt"

    def plot(self, kind: str = "") -> Path:
        """Return the path of a picture: plots/<name>.png, or plots/<name>_<kind>.png."""
        return Path("plots") / f"{self.name}{'_' * bool(kind)}{kind}.png"

    def where(self) -> str:
        """Describe device, threads, processes, precision and seed in words."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)
        threads = f" with {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        processes = f" in {self.world_size} processes" if self.world_size > 1 else ""
        return f"{name}{threads}{processes}, {self.precision}, seed {self.seed}"

    def autocast(self) -> torch.autocast:
        """Return the autocast context for the forward pass: bf16, fp16, or no autocast for fp32."""
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.precision != "fp32")

    def print(self, text: str) -> None:
        """Print in the first process only."""
        if self.rank == 0:
            print(text, flush=True)


def default_name(main: Callable, parameters: dict, run: Run) -> str:
    """Return the script's name and the parameters that differ from their defaults: train-shapes-epochs20-s1."""
    parts = [Path(inspect.getfile(main)).stem]
    for key, value in parameters.items():
        if value == inspect.signature(main).parameters[key].default or key in FILES:
            continue
        if isinstance(value, bool):
            parts.append(key if value else f"no_{key}")
        elif isinstance(value, tuple):
            parts.append(key + "x".join(map(str, value)))
        else:
            parts.append(short_name(value) if isinstance(value, str) else f"{key}{value}")
    if run.init:
        parts.append(f"init_{short_name(run.init)}")
    if run.fold:
        parts.append(f"fold{run.fold.replace('/', 'of')}")
    if run.seed:
        parts.append(f"s{run.seed}")
    return re.sub(rf"[{re.escape(NOT_IN_NAMES)}\s]", "_", "-".join(parts))


def short_name(value: str) -> str:
    """Return the last part of a path. best_x.pt gives x; "." and ".." give the real name of the folder."""
    if value.endswith(".pt"):
        return Path(value).stem.removeprefix("best_")
    name = Path(value).name
    return name if name.strip(".") else Path(value).resolve().name


def claim_name(base: str) -> str:
    """Create runs/<base>, or runs/<base>-2, -3, ... if the name is taken; return the name.

    Creating the folder claims the name, so two runs that start together get two names. A folder that is still empty
    when the process ends is removed.

    Raises:
        UserError: the folder cannot be created.
    """
    for number in count(1):
        name = base if number == 1 else f"{base}-{number}"
        if Path(f"best_{name}.pt").exists():
            continue
        try:
            Path("runs", name).mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"cannot write {Path('runs', name)}: {error.strerror}") from error
        atexit.register(remove_if_empty, Path("runs", name).absolute())
        return name


def remove_if_empty(folder: Path) -> None:
    """Remove a folder if it is empty."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def newest_run(base: str, of_job: bool) -> str:
    """Return the run with the highest number among `base`, `base`-2, ... that have a last.pt; "" if there is none.

    Args:
        of_job: consider only runs of this torchrun job.
    """
    newest, highest = "", 0
    for folder in (path.parent for path in Path("runs").glob("*/last.pt")):
        match = re.fullmatch(rf"{re.escape(base)}(?:-(\d+))?", folder.name)
        if not match or (of_job and read_json(folder / "config.json").get("job") != os.environ.get(JOB)):
            continue
        if (number := int(match[1] or 1)) > highest:
            newest, highest = folder.name, number
    return newest


def differences(before: dict, after: dict) -> dict[str, str]:
    """Return the differences between two `Run.settings`, as {"lr": "lr 0.01 -> 0.001"}."""
    pairs = {key: (before.get(key), after.get(key)) for key in {**before, **after}}
    return {key: f"{key} {old} -> {new}" for key, (old, new) in pairs.items() if old != new}


def plain(value: object) -> object:
    """Return `value` as JSON would: tuples become lists, paths become text."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
