"""Where and how an experiment runs: name, seed, device, precision, processes."""

import copy
import ctypes
import inspect
import math
import os
import platform
import random
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from common.errors import UserError
from common.files import check_writable, read_json, write_json
from common.system.distributed import all_gather, init_process_group

NOT_IN_NAMES = '/\\:*?"<>|$'  # not allowed in file names by some system, or read by a shell


@dataclass
class Run:
    """What does not change an experiment's question. `main` receives one and begins with `run = run.start(...)`."""

    name: str = ""  # name of all that the run leaves; by default the script's, and what differs from its defaults
    seed: int = 0  # seeds the initial weights, the order of the images, and their augmentation
    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps; auto takes a GPU where there is one
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # auto takes bf16 where the processor is fast at it
    data_root: Path = Path("data")  # folder that download.py filled
    cache_dir: Path = Path(".cache")  # folder for decoded images; the data folder is never written to
    encoder_weights: str = ""  # file or folder with ImageNet weights, without a network and for mobilenet_v1
    resume: bool = False  # go on from last_<name>.pt
    clip_norm: float = 0.0  # norm that a gradient is clipped to; 0 leaves it as it is
    compile: bool = False  # compile the model with torch.compile
    dry_run: bool = False  # show the data, the model, what a step costs and a batch, then stop
    tensorboard: bool = False  # write TensorBoard events to runs/<name>/

    script: str = field(default="", init=False)  # stem of the file that main is in
    parameters: dict = field(default_factory=dict, init=False)  # main's arguments
    splits: dict = field(default_factory=dict, init=False)  # names of the images in each, when they are loaded
    rank: int = field(default=0, init=False)  # which of `world_size` processes this is; torchrun decides
    world_size: int = field(default=1, init=False)

    def start(self, main: Callable, parameters: dict) -> "Run":
        """Return a copy of this run that is ready to go; the first line of every `main`.

        Args:
            main: the experiment's function, whose file and defaults give the run its name.
            parameters: its arguments, that is `locals()`.

        Raises:
            UserError: a number out of range, a device that is not there, a folder that cannot be written, or
                nothing to resume.
        """
        parameters = {key: value for key, value in parameters.items() if key != "run"}
        numbers = {"seed": self.seed, "clip_norm": self.clip_norm}
        for key, value in (parameters | numbers).items():
            if isinstance(value, int | float) and not (value >= 0 and math.isfinite(value)):
                raise UserError(f"--{key.replace('_', '-')} is {value}; it must be a number from 0 upwards")
            if isinstance(value, int) and value >= 2**31:
                raise UserError(f"--{key.replace('_', '-')} is {value}; it must be below {2**31}")

        run = copy.copy(self)
        run.script, run.parameters = Path(inspect.getfile(main)).stem, parameters
        run.name = self.name or default_name(main, parameters, self.seed)
        if not run.name.isprintable() or set(run.name) & set(NOT_IN_NAMES) or run.name.startswith("."):
            raise UserError(
                f"--name {run.name!r} names files: it may not begin with a dot or hold any of {NOT_IN_NAMES}"
            )
        if len(run.name.encode()) > 200:
            raise UserError(f"the run's name has {len(run.name)} letters, too many for a file; give a short --name")
        run._join_processes()
        # After a process has died, torchrun gives the same command again; each machine counts the deaths on it.
        if any(all_gather(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0")) and run.last_checkpoint.exists():
            run.resume = True
        run.precision = choose_precision(self.precision, run.device)
        if run.resume and not run.last_checkpoint.exists():
            others = ", ".join(sorted(str(path) for path in Path().glob("last_*.pt"))) or "none"
            raise UserError(
                f"nothing to resume: {run.last_checkpoint} is not in {Path.cwd()} (there: {others}); "
                "give the same flags as the run to go on with, or its --name"
            )
        keep_freed_memory()
        torch.manual_seed(self.seed)
        np.random.seed(self.seed)
        random.seed(self.seed)
        # TF32 keeps 10 of fp32's 23 bits; who asks for fp32 gets fp32.
        torch.set_float32_matmul_precision("highest")
        records = [run.folder / name for name in ("config.json", "splits.json", "history.csv", "test.json")]
        plots = [run.plot(), run.plot("predictions"), run.plot("augmentation")]
        for path in (run.best_checkpoint, run.last_checkpoint, *plots, *records):
            check_writable(path)  # now, not after hours of training
        run.print(f"{run.name}: {run.where()}")
        return run

    def record(self) -> None:
        """Write what is run, and on what, to config.json and splits.json; compare them with that if the run goes on.

        Raises:
            UserError: this run would replace one on other data, or go on with other settings or other data.
        """
        if self.rank > 0:
            return
        config, splits = self.folder / "config.json", self.folder / "splits.json"
        theirs, their_splits = read_json(config), read_json(splits)
        ours = {"name": self.name, "script": self.script, "parameters": self.parameters}
        ours["run"] = {key: value for key, value in asdict(self).items() if key not in ("parameters", "splits")}
        if self.resume:
            for key in sorted({"precision", "clip_norm"} & theirs.get("run", {}).keys()):
                if theirs["run"][key] != ours["run"][key]:
                    flag = f"--{key.replace('_', '-')} {theirs['run'][key]}"
                    raise UserError(f"{self.name} began with {flag}, not {ours['run'][key]}; give the same flags")
            if their_splits and their_splits != self.splits:
                raise UserError(
                    f"the images or their splits are not those in {splits}, with which {self.name} began; "
                    "bring them back, or start over without --resume"
                )
            return
        was, now = (about.get("parameters", {}).get("dataset") for about in (theirs, ours))
        if was and now and Path(str(was)) != Path(now):
            raise UserError(f"{self.folder} is of a run of that name on {was}, not {now}; give this one another --name")
        (self.folder / "test.json").unlink(missing_ok=True)
        ours |= {"command": sys.argv, "versions": {"python": platform.python_version(), "torch": torch.__version__}}
        write_json(config, ours)
        write_json(splits, self.splits)

    @property
    def folder(self) -> Path:
        """Where the run keeps its records."""
        return Path("runs") / self.name

    @property
    def best_checkpoint(self) -> Path:
        """The weights with the best validation mIoU."""
        return Path(f"best_{self.name}.pt")

    @property
    def last_checkpoint(self) -> Path:
        """Everything after the last finished epoch, to resume from."""
        return Path(f"last_{self.name}.pt")

    def plot(self, kind: str = "") -> Path:
        """Return the path of a picture: plots/<name>.png, or plots/<name>_<kind>.png."""
        return Path("plots") / f"{self.name}{'_' * bool(kind)}{kind}.png"

    def where(self) -> str:
        """Say in words what the run computes on."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)
        threads = f" with {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        processes = f" in {self.world_size} processes" if self.world_size > 1 else ""
        return f"{name}{threads}{processes}, {self.precision}, seed {self.seed}"

    def autocast(self) -> torch.autocast:
        """Return the context in which the network computes: bf16 matrix products, or plain fp32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def print(self, text: str) -> None:
        """Print in the first process only."""
        if self.rank == 0:
            print(text, flush=True)

    def _join_processes(self) -> None:
        """Set rank, world_size and device from torchrun's environment, or for a single process."""
        missing = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} - os.environ.keys()
        if "WORLD_SIZE" in os.environ and missing:
            raise UserError(
                f"WORLD_SIZE is set, but not {', '.join(sorted(missing))}; start several processes by torchrun"
            )
        self.world_size = int(os.environ.get("WORLD_SIZE", 1))
        self.rank = int(os.environ.get("RANK", 0))
        self.device = choose_device(self.device)
        if self.world_size > 1:
            if self.device.type == "cuda":
                self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)


def keep_freed_memory() -> None:
    """Have the C library keep the memory that is freed, instead of giving it back to the system at once.

    The next training step needs as much again. Memory fresh from the system is filled with zeros, page by page when it
    is first touched: up to a third of a step's time on a CPU. Only glibc, Linux's usual C library, can be told so.
    """
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(libc, "mallopt"):
        trim_threshold, mmap_max = -1, -4  # as malloc.h numbers them
        libc.mallopt(mmap_max, 0)  # large tensors lie on the heap as all others, ...
        libc.mallopt(trim_threshold, -1)  # which never shrinks


def default_name(main: Callable, parameters: dict, seed: int) -> str:
    """Name a run after its script and what differs from the script's defaults: train-shapes-epochs20-s1."""
    script = Path(inspect.getfile(main)).stem
    differs = [script]
    for key, value in parameters.items():
        if value != inspect.signature(main).parameters[key].default:
            if isinstance(value, bool):
                differs.append(key if value else f"no_{key}")
            elif isinstance(value, tuple):
                differs.append(key + "x".join(map(str, value)))
            else:
                differs.append(short_name(value) if isinstance(value, str) else f"{key}{value}")
    if seed:
        differs.append(f"s{seed}")
    return re.sub(rf"[{re.escape(NOT_IN_NAMES)}\s]", "_", "-".join(differs))


def short_name(value: str) -> str:
    """Return `value`, or, if it is a path, its last part; of "." and ".." the name of the folder that is meant."""
    name = Path(value).name
    return name if name.strip(".") else Path(value).resolve().name


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; for "auto" the first GPU, else Apple's, else the processor."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        available = {"cpu": True, "mps": torch.backends.mps.is_available()}
        available["cuda"] = torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    except RuntimeError:
        raise UserError(f"--device {name} is no device; use auto, cpu, cuda, cuda:1 or mps") from None
    if not available.get(device.type):
        raise UserError(f"--device {name} is not available to this installation of torch; use auto or cpu")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def choose_precision(name: str, device: torch.device) -> str:
    """Return "bf16" or "fp32"; for "auto" bf16 where the hardware multiplies bf16 matrices natively."""
    if name != "auto":
        return name
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        has = torch.cpu.get_capabilities()
        native = device.type == "cpu" and (has.get("avx512_bf16", False) or has.get("amx_bf16", False))
    return "bf16" if native else "fp32"
