"""What does a GPU make of this repository? Everything about it in one command of at most 20 minutes.

Run       python benchmarks/gpu.py                                         # every part
          python benchmarks/gpu.py --parts "sync speed" --models "unet"    # two of them, and one network
          python benchmarks/gpu.py --data-root FOLDER                      # that has VOC, to train on it too

tests     those of tests/ that are marked `gpu`
sync      where does the loop over the batches wait for the GPU? See benchmarks/sync.py
loading   data on the GPU against data in host memory: loading alone, and an epoch of the baseline FCN
training  train.py with the lesson's settings, and its scores on the test images
resume    the first of these again, killed in its second epoch, and gone on with
speed     training steps of each network, in turn with the plain loops that benchmarks/reference.py describes, but
          without loading: theirs take a batch from host memory, ours from the GPU. Medians over --repeats, and the peak
          of GPU memory of each alone. After --minutes no further network is measured

Prints the results as Markdown, and writes them to results/gpu-<name of the GPU>.json, each as soon as it is there; what
another command wrote of other parts stays, if commit, versions and sizes are the same. `--device cpu` tries all but
`sync` on a processor, and writes only where --out says.
"""

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
from lesson import OF_ONE, SETTINGS

PARTS = "tests sync loading training resume speed"
PRECISIONS = "bf16 fp16 fp32 bf16+compile"
BEST = "best plain loop"


def main(
    parts: str = PARTS,  # which of them, in this order
    models: str = " ".join(MODELS),  # networks whose speed is measured, from random weights
    precisions: str = PRECISIONS,  # in which it is measured, with torch.compile or without
    image_size: int = 224,  # side of the square images, pixels; trainings have the lesson's
    batch_size: int = 16,  # images per step, but for trainings
    repeats: int = 3,  # times that each speed is measured
    datasets: str = "shapes voc2012 voc2007",  # to train on, where they are
    training_epochs: int = 0,  # of each training; 0 takes the lesson's
    minutes: int = 15,  # after which no further network is measured
    out: str = "",  # file for the results, in place of results/gpu-<name of the GPU>.json
    run: Run = Run(),
):
    if run.device == "auto" and not torch.cuda.is_available():
        raise UserError("this installation of torch finds no GPU; --device cpu tries the parts on a processor")
    run, end = run.start(main, locals()), time.monotonic() + 60 * minutes
    known = {"parts": PARTS.split(), "models": MODELS, "precisions": PRECISIONS.split(), "datasets": SETTINGS}
    for flag, names in known.items():
        if unknown := set(run.parameters[flag].split()) - set(names):
            raise UserError(f"--{flag} {unknown.pop()} is none of {', '.join(names)}")
    gpu = run.device.type == "cuda"
    rows = {
        "tests": tests(),
        "sync": waits(image_size, batch_size, run) if gpu else [("training", "not measured, for there is no GPU")],
        "loading": loading(image_size, batch_size, repeats, run),
        "training": training(datasets.split(), training_epochs, run),
        "resume": resume(datasets.split()[0], training_epochs, run),
        "speed": speed(models.split(), precisions.split(), image_size, batch_size, repeats, end, run),
    }
    result = {
        "device": torch.cuda.get_device_name(run.device) if gpu else machine(),
        "driver": collect_env.get_nvidia_driver_version(collect_env.run),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "TF32 in convolutions": torch.backends.cudnn.allow_tf32,  # of fp32, where the GPU has it
        "commit": commit(),
        "image_size": image_size,
        "batch_size": batch_size,
    }
    path = Path(out or RESULTS / f"gpu-{re.sub(r'[^a-zA-Z0-9]+', '-', result['device'])}.json")
    about, before = ", ".join(f"{key} {value}" for key, value in result.items()), read_json(path)
    result = before if result.items() <= before.items() else result
    failed = []
    for part in parts.split():
        result[part] = {}
        with torch_errors(batch_size):
            for name, outcome in rows[part]:
                result[part][name] = outcome
                failed += [f"{part}, {name}"] * ("failed" in outcome)
                print(f"{part}, {name}: {shown(outcome)}", flush=True)
                if gpu or out:
                    write_json(path, result)
    print(f"\n{about}\n\n{markdown({part: result[part] for part in PARTS.split() if part in result})}")
    if failed:
        raise UserError(f"failed, as is said above: {'; '.join(failed)}")
    return result


def tests() -> Iterator[tuple[str, str]]:
    """Run the tests that are marked `gpu`; yield pytest's last line."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu"]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    yield "pytest -m gpu", "failed: " * bool(done.returncode) + done.stdout.strip().rpartition("\n")[2]


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


def training(datasets: list[str], epochs: int, run: Run) -> Iterator[tuple[str, str | dict]]:
    """Run train.py on each of `datasets` that is there; yield its scores."""
    for dataset in datasets:
        try:
            spec_of(dataset, run)
        except UserError:
            yield dataset, "not measured, for it is not below --data-root"
            continue
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(train_command(dataset, epochs, run), cwd=folder)
            yield dataset, scores(Path(folder, "runs/gpu"))


def resume(dataset: str, epochs: int, run: Run) -> Iterator[tuple[str, str | dict]]:
    """Run train.py, kill it in the middle of its second epoch, and go on; yield the scores."""
    with tempfile.TemporaryDirectory() as temporary:
        command, folder = train_command(dataset, epochs, run), Path(temporary, "runs/gpu")
        with subprocess.Popen(command, cwd=temporary, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                print(line, end="", flush=True)
                if re.match("epoch +1/", line):
                    time.sleep(read_history(folder)[-1]["seconds"] / 2)
                    process.kill()
        if process.returncode >= 0:
            yield dataset, "failed: it ended before it was killed"
            return
        before = (folder / "history.csv").read_text()
        subprocess.run([*command, "--resume"], cwd=temporary)
        went_on = (folder / "history.csv").read_text().startswith(before)
        yield f"{dataset}, killed in epoch 2", scores(folder) if went_on else "failed: it began anew"


def train_command(dataset: str, epochs: int, run: Run) -> list[str]:
    """Return the command of the lesson's training on `dataset`; what it leaves is called "gpu"."""
    flags = f"--dataset {dataset} {SETTINGS[dataset]} {OF_ONE['train']} --name gpu --precision {run.precision}".split()
    flags += ["--epochs", str(epochs)] if epochs else []
    places = ["--data-root", run.data_root.resolve(), "--cache-dir", run.cache_dir.resolve()]
    return list(map(str, [sys.executable, REPOSITORY / "train.py", *flags, "--device", run.device, *places]))


def scores(folder: Path) -> str | dict:
    """Return what the finished run in `folder` reached."""
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
    models: list[str], precisions: list[str], image_size: int, batch_size: int, repeats: int, end: float, run: Run
) -> Iterator[tuple[str, str | dict]]:
    """Yield images/s, the peak of GPU memory in GiB, and the seconds of the first steps, of each network and loop.

    No network is begun after `end`, seconds of time.monotonic.
    """
    gpu = run.device.type == "cuda"
    steps = 10 if gpu else 1  # several, so that starting the first one counts little
    loader = Loader(noise_set(batch_size, image_size), batch_size, run)
    images, masks = next(iter(loader))
    pairs = list(zip(images.cpu(), masks[:, None].cpu(), strict=True))
    batches = list(DataLoader(pairs, batch_size, pin_memory=gpu)) * steps  # as the reference's loader has them

    def loop(name: str, kind: str) -> Callable[[], object]:
        model = network(name, run)
        if kind in precisions:
            precision, _, compiled = kind.partition("+")
            settings = replace(run, device=str(run.device), precision=precision, compile=bool(compiled)).prepared()
            return training_steps(model, loader, settings, steps)
        optimizer = torch.optim.AdamW(model.parameters(), fused=kind == BEST)
        return partial(reference_epoch, model, optimizer, batches, [], run, best=kind == BEST)

    for name in models:
        if time.monotonic() > end:
            yield name, "not measured, for the time was over"
            continue
        torch.compiler.reset()  # what is compiled for one network counts against the limit of the next
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
        yield name, row


def shown(outcome: object) -> str:
    """Return what came out as text."""
    if isinstance(outcome, dict):
        return ", ".join(f"{key} {shown(value)}" for key, value in outcome.items())
    return f"{outcome:.4g}" if isinstance(outcome, float) else str(outcome)


def markdown(result: dict) -> str:
    """Return the outcomes of the parts as a table, and the speeds of the networks as one of their own."""
    speeds = {name: row for name, row in result.get("speed", {}).items() if isinstance(row, dict)}
    rows = [[part, *map(shown, row)] for part in result for row in result[part].items() if row[0] not in speeds]
    tables = [table([["part", "of what", "result"], *rows])] * bool(rows)
    if speeds:
        first, *_ = kinds = list(next(iter(speeds.values())))
        rows = [["images/s (GiB)", *kinds, f"{first} to {BEST}", "to the tutorial's"]]
        for name, row in speeds.items():
            ratios = [f"{row[first]['images/s'] / row[kind]['images/s']:.2f}" for kind in (BEST, TUTORIAL)]
            rows.append([name, *(f"{row[kind]['images/s']:.4g} ({row[kind]['GiB']:.1f})" for kind in kinds), *ratios])
        tables.append(table(rows))
    return "\n\n".join(tables)


if __name__ == "__main__":
    cli(main)
