"""The settings of a run, its name, and the names of its files."""

import inspect
import os
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from common.experiment import NOT_IN_NAMES, code_of, default_name, fingerprint, numbered_name, plain, resumable_name
from common.system.device import choose_device, choose_precision, keep_freed_memory
from common.system.distributed import all_gather, init_process_group
from common.system.errors import UserError
from common.system.files import check_writable

# That these parameters must be; others must be 0 or more.
LEAST = {"epochs": 1, "batch_size": 1, "copies": 1, "smallest_scale": 0.1, "largest_scale": 0.1}


@dataclass
class Run:
    """What does not change an experiment's question. `main` receives one and begins with `run = run.start(...)`."""

    name: str = ""  # name of all that the run leaves; by default the script's, and what differs from its defaults
    seed: int = 0  # seeds the initial weights, the order of the images, and their augmentation
    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps; auto takes a GPU where there is one
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"  # auto: bf16 where it is fast, fp16 on older GPUs
    data_root: Path = Path("data")  # folder that download.py filled
    cache_dir: Path = Path(".cache")  # folder for decoded images; the data folder is never written to
    resume: bool = False  # go on from last_<name>.pt
    init: str = ""  # best_*.pt of another run, whose weights this one starts from, as far as they fit
    fold: str = ""  # 2/5 tests on the second fifth, kitchen on images/kitchen/; a set's own test images are left out
    compile: bool = False  # compile the model with torch.compile
    dry_run: bool = False  # show the data, the model, what a step costs and a batch, then stop
    tensorboard: bool = False  # write TensorBoard events to runs/<name>/

    base: str = field(default="", init=False)  # the name without a number
    fingerprints: dict = field(default_factory=dict, init=False)  # of the script, the model's source, the images
    script: str = field(default="", init=False)  # stem of the file that main is in
    script_text: str = field(default="", init=False, repr=False)  # of that file
    parameters: dict = field(default_factory=dict, init=False)  # main's arguments
    scaler: torch.amp.GradScaler | None = field(default=None, init=False)  # of the loss; it does nothing but in fp16
    rank: int = field(default=0, init=False)  # which of `world_size` processes this is; torchrun decides
    world_size: int = field(default=1, init=False)

    def start(self, main: Callable, parameters: dict) -> "Run":
        """Return a copy of this run that is ready to train; the first line of every `main`.

        Args:
            main: the experiment's function, whose file and defaults give the run its name.
            parameters: its arguments, that is `locals()`.

        Raises:
            UserError: a number that is too small, a device that is not there, a folder that cannot be written, or
                nothing to resume.
        """
        run = self.prepared()
        run.script = Path(inspect.getfile(main)).stem
        run.parameters = {key: value for key, value in parameters.items() if key != "run"}
        for key, value in {**run.parameters, "seed": self.seed}.items():
            if isinstance(value, int | float) and not value >= LEAST.get(key, 0):  # NaN is not either
                raise UserError(f"--{key.replace('_', '-')} {value} must be at least {LEAST.get(key, 0)}")
        run.base = self.name or default_name(main, run.parameters, self)
        if set(run.base) & set(NOT_IN_NAMES) or run.base.startswith("."):
            raise UserError(f"--name {run.base} names files: it may not begin with a dot or hold any of {NOT_IN_NAMES}")
        run.script_text = Path(inspect.getfile(main)).read_text(encoding="utf-8")
        package = sorted(Path(__file__).parent.rglob("*.py"))
        run.fingerprints = {"common": fingerprint("".join(path.read_text(encoding="utf-8") for path in package))}
        run.fingerprints["script"] = fingerprint(code_of(run.script_text))
        run.name, beside = (run.base, "") if self.dry_run else numbered_name(run.base, run.config)
        # After a process has died, torchrun gives the same command again; each machine counts the deaths on it.
        if any(all_gather(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0")) and run.last_checkpoint.exists():
            run.resume = True
        elif run.resume:
            run.name, beside = resumable_name(run.base, run.config)
        for path in (run.best_checkpoint, run.last_checkpoint, run.folder / "config.json", run.plot()):
            check_writable(path)  # now, not after hours of training
        keep_freed_memory()
        torch.manual_seed(self.seed)
        np.random.seed(self.seed)
        random.seed(self.seed)
        run.print(f"{run.name}{f' ({beside})' * bool(beside)}: {run.where()}")
        return run

    def prepared(self) -> "Run":
        """Return a copy that knows its processes, device and precision: all that loading and predicting need."""
        run = replace(self)
        run.world_size, run.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        run.device = choose_device(self.device)
        if run.device.type == "cuda":
            if run.world_size > 1:
                run.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(run.device)
        if run.world_size > 1:
            init_process_group(run.device)
        run.precision = all_gather(choose_precision(self.precision, run.device))[0]  # the same in all processes
        run.scaler = torch.amp.GradScaler(run.device.type, enabled=run.precision == "fp16")
        # TF32 keeps 10 of fp32's 23 bits. Someone who asks for fp32 gets fp32.
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        if run.precision == "fp16":  # GradScaler skips the first steps, and torch's schedulers warn about that
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        return run

    @property
    def experiment(self) -> dict:
        """What makes two runs the same: all that can change a score. Resume, comparison and report go by it."""
        about = {"script": self.script, "seed": self.seed, "precision": self.precision}
        about |= {key: value for key in ("init", "fold") if (value := getattr(self, key))}
        return about | plain(self.parameters)

    @property
    def config(self) -> dict:
        """What config.json holds of this, to tell runs apart."""
        return {"experiment": self.experiment, "fingerprints": self.fingerprints}

    @property
    def folder(self) -> Path:
        """Where the run keeps its records."""
        return Path("runs") / self.name

    @property
    def best_checkpoint(self) -> Path:
        """The model of the epoch that `fit` keeps: the one with the best validation mIoU, if not the last."""
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
        """Return the context in which the network computes: bf16 or fp16 matrix products, or plain fp32."""
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.precision != "fp32")

    def print(self, text: str) -> None:
        """Print in the first process only."""
        if self.rank == 0:
            print(text, flush=True)
