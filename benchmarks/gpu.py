"""How does this repository do on a GPU? Six parts; each of these commands ends within 8 minutes.

Run       python benchmarks/gpu.py --out gpu.json --parts "tests sync loading" --minutes 2
          python benchmarks/gpu.py --out gpu.json --parts training --data-root FOLDER    # VOC too, if FOLDER has it
          python benchmarks/gpu.py --out gpu.json --parts resume
          python benchmarks/gpu.py --out gpu.json --parts speed    # again, until no network is missing

tests     the tests marked `gpu`; they need pytest
sync      lines of the training loop that wait for the GPU, see benchmarks/sync.py
loading   data on the GPU compared with data in host memory: only loading, and an epoch of the baseline FCN
training  train.py with the lesson's settings, and its test scores
resume    the first of these trainings, killed in its second epoch and resumed
speed     training steps of each network, in turn with the plain loops of benchmarks/reference.py. No loader runs: the
          plain loops take a batch from host memory, ours from the GPU. Medians over --repeats, and the peak GPU memory
          of each loop. Networks already in --out are not measured again

A part stops after --minutes; half a minute later it is killed. Each result is printed and written to --out at once. The
file keeps earlier results if commit, versions and settings are the same. At the end, the speeds are printed as a
Markdown table. `--device cpu` tries all parts except `sync` on a CPU.
"""

import faulthandler
import importlib.util
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import nn
from torch.utils import collect_env
from torch.utils.data import DataLoader

from benchmarks.epoch import TUTORIAL, our_epoch, reference_epoch
from benchmarks.loader import go_through
from benchmarks.measure import in_turn
from benchmarks.step import HostLoader, noise_set, training_steps
from benchmarks.sync import waits
from common.cli import cli
from common.datasets import spec_of
from common.datasets.voc import CLASSES
from common.history import last_epoch, read_history
from common.loader import Loader
from common.metrics import MIOU, PIXEL_ACCURACY
from common.models import MODELS, build
from common.reporting.results import REPOSITORY, RESULTS, commit, machine, table
from common.run import Run
from common.system.errors import UserError, torch_errors
from common.system.files import read_json, write_json
from tools.lesson import MORE, SETTINGS

PARTS = "tests sync loading training resume speed"
PRECISIONS = "bf16 fp16 fp32 bf16+compile"
BEST = "best plain loop"


def main(
    parts: str = PARTS,  # parts to run, in this order
    models: str = " ".join(MODELS),  # networks for the speed part, with random weights
    precisions: str = PRECISIONS,  # precisions for the speed part; +compile uses torch.compile
    image_size: int = 224,  # side of the square images, pixels; trainings use the lesson's size
    batch_size: int = 16,  # images per step; trainings use the script's default
    repeats: int = 3,  # number of speed measurements
    datasets: str = "shapes voc2012 voc2007",  # data sets for training; missing ones are skipped
    training_epochs: int = 0,  # epochs of each training; 0 for the lesson's number
    minutes: float = 7,  # time limit of each part
    out: str = "",  # file for the results; by default results/gpu-<name of the GPU>.json
    run: Run = Run(),
):
    if run.device == "auto" and not torch.cuda.is_available():
        raise UserError("this installation of torch finds no GPU; --device cpu tries the parts on a processor")
    known = {parts: PARTS.split(), models: MODELS, precisions: PRECISIONS.split(), datasets: SETTINGS}
    for given, names in known.items():
        if unknown := set(given.split()) - set(names):
            raise UserError(f"{unknown.pop()} is unknown; choose from {', '.join(names)}")
    run = run.prepared()
    gpu = run.device.type == "cuda"
    result = {
        "device": torch.cuda.get_device_name(run.device) if gpu else machine(),
        "driver": collect_env.get_nvidia_driver_version(collect_env.run),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "TF32 in convolutions": torch.backends.cudnn.allow_tf32,
        "commit": commit(),
        "image_size": image_size,
        "batch_size": batch_size,
        "precisions": precisions,
    }
    path = Path(out or RESULTS / f"gpu-{re.sub(r'[^a-zA-Z0-9]+', '-', result['device'])}.json")
    about, before = ", ".join(f"{key} {value}" for key, value in result.items()), read_json(path)
    result = before if result.items() <= before.items() else result
    missing = [name for name in models.split() if not isinstance(result.get("speed", {}).get(name), dict)]

    def left() -> float:
        """Return the seconds that remain for the part."""
        return end - time.monotonic()

    rows = {
        "tests": tests(left),
        "sync": waits(image_size, batch_size, run) if gpu else [("training", "not measured: there is no GPU")],
        "loading": loading(image_size, batch_size, repeats, run),
        "training": training(datasets.split(), training_epochs, left, run),
        "resume": resume(datasets.split()[0], training_epochs, left, run),
        "speed": speed(missing, precisions.split(), image_size, batch_size, repeats, left, run),
    }
    failed = []

    def keep(part: str, name: str, outcome: str | dict) -> None:
        result[part][name] = outcome
        failed.extend([f"{part}, {name}"] * ("failed" in outcome))
        print(f"{part}, {name}: {shown(outcome)}", flush=True)
        if gpu or out:
            write_json(path, result)

    for part in parts.split():
        end = time.monotonic() + 60 * minutes
        faulthandler.dump_traceback_later(60 * minutes + 30, exit=True)  # also works when a GPU hangs
        result[part] = result.get(part, {}) if part == "speed" else {}
        try:
            with torch_errors(batch_size):
                for name, outcome in rows[part]:
                    keep(part, name, outcome)
        except subprocess.TimeoutExpired:
            keep(part, "all else", f"failed: stopped after {minutes:g} minutes")
    faulthandler.cancel_dump_traceback_later()
    print(f"\n{about}\n\n{speeds(result.get('speed', {}))}")
    if failed:
        raise UserError(f"failed: {'; '.join(failed)}")
    return result


def tests(left: Callable[[], float]) -> Iterator[tuple[str, str]]:
    """Run the tests marked `gpu`; yield whether they passed."""
    if not importlib.util.find_spec("pytest"):
        yield "pytest -m gpu", "not run: pytest is not installed"
        return
    # Other test files import packages that are only installed for development.
    files = [path for path in (REPOSITORY / "tests").glob("test_*.py") if "mark.gpu" in path.read_text("utf-8")]
    done = subprocess.run([sys.executable, "-m", "pytest", "-m", "gpu", *files], cwd=REPOSITORY, timeout=left())
    yield "pytest -m gpu", "failed, see above" if done.returncode else "passed"


def loading(image_size: int, batch_size: int, repeats: int, run: Run) -> Iterator[tuple[str, dict]]:
    """Yield images/s with data on the device and with data in host memory."""
    data, work, images = noise_set(32 * batch_size, image_size), {}, {}
    for place, kind in {"on the device": Loader, "in host memory": HostLoader}.items():
        loader, val_loader = kind(data, batch_size, run, shuffle=True), kind(data, batch_size, run)
        name, both = f"loading, data {place}", f"training and validation, data {place}"
        work[name], images[name] = partial(go_through, loader, run), len(data)
        work[both], images[both] = our_epoch(network("basic_fcn", run), loader, val_loader, run), 2 * len(data)
    for name, (_, median) in in_turn(work, repeats, run).items():
        yield name, {"images/s": images[name] / median}


def network(name: str, run: Run) -> nn.Module:
    """Return the model called `name` on the run's device."""
    return build(name, len(CLASSES), encoder="resnet18", pretrained=False).to(run.device)


def training(datasets: list[str], epochs: int, left: Callable[[], float], run: Run) -> Iterator[tuple[str, str | dict]]:
    """Run train.py on each available data set; yield its scores."""
    for dataset in datasets:
        try:
            spec_of(dataset, run)
        except UserError:
            yield dataset, "not measured: it is not below --data-root"
            continue
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(train_command(dataset, epochs, run), cwd=folder, timeout=left())
            yield dataset, scores(Path(folder, "runs/gpu"))


def resume(dataset: str, epochs: int, left: Callable[[], float], run: Run) -> Iterator[tuple[str, str | dict]]:
    """Run train.py, kill it as soon as its second epoch begins, and resume it; yield the scores."""
    with tempfile.TemporaryDirectory() as temporary:
        command, history = train_command(dataset, epochs, run), Path(temporary, "runs/gpu/history.csv")
        with subprocess.Popen(command, cwd=temporary) as process:
            while process.poll() is None and left() > 0 and not history.exists():
                time.sleep(0.01)
            process.kill()
        if process.returncode >= 0 or not history.exists():
            yield dataset, "failed: no epoch ended, or all did"
            return
        before = history.read_text()
        subprocess.run([*command, "--resume"], cwd=temporary, timeout=left())
        continued = history.read_text().startswith(before)
        yield f"{dataset}, killed in epoch 2", scores(history.parent) if continued else "failed: it started over"


def train_command(dataset: str, epochs: int, run: Run) -> list[str]:
    """Return the command of the lesson's training on `dataset`, with the run name "gpu"."""
    flags = f"--dataset {dataset} {SETTINGS[dataset]} {MORE['train']} --name gpu --precision {run.precision}".split()
    flags += ["--epochs", str(epochs)] if epochs else []
    places = ["--data-root", run.data_root.resolve(), "--cache-dir", run.cache_dir.resolve()]
    return list(map(str, [sys.executable, REPOSITORY / "train.py", *flags, "--device", run.device, *places]))


def scores(folder: Path) -> str | dict:
    """Return the scores and times of the finished run in `folder`."""
    if not (test := read_json(folder / "test.json")):
        return "failed: it left no scores"
    history = read_history(folder)
    return {
        "mIoU": test["scores"][MIOU],
        "floor": test["floor"][MIOU],
        "pixel accuracy": test["scores"][PIXEL_ACCURACY],
        "epochs": last_epoch(history),
        "minutes": sum(row["seconds"] for row in history) / 60,
        "images/s in training": history[-1]["train_images_per_second"],
    }


def speed(
    models: list[str],
    precisions: list[str],
    image_size: int,
    batch_size: int,
    repeats: int,
    left: Callable[[], float],
    run: Run,
) -> Iterator[tuple[str, str | dict]]:
    """Yield images/s, peak GPU memory in GiB, and the seconds of the first steps, for each network and loop.

    A network is skipped if the slowest one so far took longer than the remaining time.
    """
    gpu, longest = run.device.type == "cuda", 0
    steps = 10 if gpu else 1  # with several steps, the launch overhead counts little
    loader = Loader(noise_set(batch_size, image_size), batch_size, run)
    images, masks = next(iter(loader))
    pairs = list(zip(images.cpu(), masks[:, None].cpu(), strict=True))
    batches = list(DataLoader(pairs, batch_size, pin_memory=gpu)) * steps  # same layout as from the plain loader

    def loop(name: str, kind: str) -> Callable[[], object]:
        model = network(name, run)
        if kind in precisions:
            precision, _, compiled = kind.partition("+")
            settings = replace(run, device=str(run.device), precision=precision, compile=bool(compiled)).prepared()
            return training_steps(model, loader, settings, steps)
        optimizer = torch.optim.AdamW(model.parameters(), fused=kind == BEST)
        return partial(reference_epoch, model, optimizer, batches, [], run, best=kind == BEST)

    for name in models:
        if (begun := left()) < longest:
            yield name, "not measured yet: no time left"
            continue
        torch.compiler.reset()  # otherwise all networks share one limit of recompilations
        loops, row = {}, {}
        for kind in (*precisions, BEST, TUTORIAL):
            before, start = torch.cuda.memory_allocated(), time.perf_counter()
            if gpu:
                torch.cuda.reset_peak_memory_stats()
            loops[kind] = loop(name, kind)
            loops[kind]()
            peak = torch.cuda.max_memory_allocated() - before
            row[kind] = {"GiB": peak / 2**30, "first steps, s": time.perf_counter() - start}
        for kind, (_, median) in in_turn(loops, repeats, run, tutorial=TUTORIAL).items():
            row[kind] = {"images/s": steps * batch_size / median} | row[kind]
        longest = max(longest, begun - left())
        yield name, row


def shown(outcome: object) -> str:
    """Return an outcome as text."""
    if isinstance(outcome, dict):
        return ", ".join(f"{key} {shown(value)}" for key, value in outcome.items())
    return f"{outcome:.4g}" if isinstance(outcome, float) else str(outcome)


def speeds(networks: dict[str, dict | str]) -> str:
    """Return the measured speeds as a Markdown table."""
    if not (networks := {name: row for name, row in networks.items() if isinstance(row, dict)}):
        return ""
    first, *_ = kinds = list(next(iter(networks.values())))
    rows = [["images/s (GiB)", *kinds, f"{first} to {BEST}", "to the tutorial's"]]
    for name, row in networks.items():
        ratios = [f"{row[first]['images/s'] / row[kind]['images/s']:.2f}" for kind in (BEST, TUTORIAL)]
        rows.append([name, *(f"{row[kind]['images/s']:.4g} ({row[kind]['GiB']:.1f})" for kind in kinds), *ratios])
    return table(rows)


if __name__ == "__main__":
    cli(main)
