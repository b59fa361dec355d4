"""How much of what this machine can compute does training use, and how much memory?

Run       python benchmarks/limit.py                      # every model, some minutes
          python benchmarks/limit.py --model unet         # one
          python benchmarks/limit.py --precision fp32

Measures the machine's ceiling in floating-point operations per second: the product of two large matrices in fp32 and
bf16, and the U-Net's largest convolution, forward and backward, in the run's precision. Then, for each model and in
turn with that convolution, the training step of common/engine.py; prints the part of the convolution's rate that the
step reaches, by medians over --repeats, and the peak memory of a process that does nothing else (on a GPU, the GPU's).
The step's operations are those of its convolutions and matrix products (torch.utils.flop_counter): all else it does
counts as lost.
"""

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Clock, in_turn, peak_memory
from benchmarks.step import training_steps
from common.cli import cli
from common.datasets import SegmentationSet
from common.datasets.voc import CLASSES, PALETTE
from common.loader import Loader
from common.models import MODELS, build, count_parameters
from common.run import Run
from common.system.device import keep_freed_memory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main(
    model: Literal[("all", *MODELS)] = "all",  # which network; encoders are ResNet-18, everything is trained
    image_size: int = 224,  # side of the square images, pixels
    batch_size: int = 8,  # images per step
    repeats: int = 5,  # times that each is measured
    clock: Clock = "wall",  # time, or the processor time of all threads, for a machine that does other things
    run: Run = Run(),
):
    run = run.start(main, locals())
    products = {f"{name} matrix product": product(dtype, run) for name, dtype in DTYPES.items()}
    times = in_turn({name: call for name, (call, _) in products.items()}, repeats, clock, run)
    ceilings = {name: flops / times[name][1] for name, (_, flops) in products.items()}
    print(f"\n{image_size}x{image_size}, batch {batch_size}, {run.precision}, TFLOP/s of {clock} time, torch", end=" ")
    print(torch.__version__ + "; " + ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in ceilings.items()))
    columns = ("parameters", "GFLOP/image", "images/s", "convolution", "step", "part", "peak MiB")
    print(f"{'model':<14}" + "".join(f"{column:>13}" for column in columns))
    rows = {}
    for name in MODELS if model == "all" else [model]:
        # A process each, started afresh: its peak memory is the model's.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            try:
                row = pool.submit(measure, name, image_size, batch_size, repeats, clock, run).result()
            except BrokenProcessPool:
                print(f"{name:<14}  its process was killed, probably for want of memory; try a smaller --batch-size")
                continue
        rows[name] = row
        print(
            f"{name:<14}{row['parameters']:>13,}{row['flops'] / batch_size / 1e9:>13.1f}{row['images/s']:>13.4g}"
            f"{row['ceiling'] / 1e12:>13.3g}{row['rate'] / 1e12:>13.3g}{row['rate'] / row['ceiling']:>13.1%}"
            f"{row['peak']:>13.0f}",
            flush=True,
        )
    return ceilings, rows


def product(dtype: torch.dtype, run: Run) -> tuple[Callable[[], torch.Tensor], int]:
    """Return a function that multiplies two large matrices, and its floating-point operations."""
    side = 8192 if run.device.type == "cuda" else 2048
    a, b = torch.rand(2, side, side, device=run.device).to(dtype)
    return lambda: a @ b, 2 * side**3


def convolution(batch_size: int, run: Run) -> Callable[[], None]:
    """Return a function with the U-Net's largest convolution at 224 pixels, forward and backward."""
    options = {"device": run.device, "dtype": DTYPES[run.precision], "memory_format": torch.channels_last}
    conv = nn.Conv2d(1024, 512, kernel_size=3, padding=1, bias=False).to(**options)
    x = torch.rand(batch_size, 1024, 28, 28).to(**options).requires_grad_()
    gradient = torch.rand(batch_size, 512, 28, 28).to(**options)
    return lambda: conv(x).backward(gradient)


def measure(name: str, image_size: int, batch_size: int, repeats: int, clock: Clock, run: Run) -> dict[str, float]:
    """Return what is printed of the model called `name`: rates in FLOP/s, peak memory in MiB."""
    keep_freed_memory()  # as run.start() does, which the parent process has called
    images = torch.randint(0, 256, (batch_size, image_size, image_size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    masks = torch.randint(0, len(CLASSES), (batch_size, image_size, image_size), dtype=torch.uint8)
    data = SegmentationSet(images, masks, [""] * batch_size, CLASSES, PALETTE, "noise", "train")
    model = build(name, len(CLASSES), encoder="resnet18", pretrained=False)
    steps = 10 if run.device.type == "cuda" else 1  # several, so that starting the first one counts little
    train = training_steps(model, Loader(data, batch_size, run), run, steps)
    train()
    train()
    peak = peak_memory(run)
    convolve = convolution(batch_size, run)
    flops, conv_flops = flops_of(train) / steps, flops_of(convolve)

    def convolve_often() -> None:
        for _ in range(steps):
            convolve()

    times = in_turn({"ceiling": convolve_often, "step": train}, repeats, clock, run)
    seconds = times["step"][1] / steps
    row = {"parameters": count_parameters(model), "flops": flops, "images/s": batch_size / seconds, "peak": peak}
    return row | {"rate": flops / seconds, "ceiling": conv_flops * steps / times["ceiling"][1]}


def flops_of(function: Callable[[], object]) -> int:
    """Return the floating-point operations of `function`, two for each multiplication and addition."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


if __name__ == "__main__":
    cli(main)
