"""How much of what this machine can compute does training use?

Run       python benchmarks/limit.py                      # every model, some minutes
          python benchmarks/limit.py --model unet         # one
          python benchmarks/limit.py --precision fp32

Measures the machine's ceiling in floating-point operations per second: the product of two large matrices in fp32 and
bf16, and the U-Net's largest convolution, forward and backward, in the run's precision. Then, for each model and in
turn with that convolution, the training step of common/engine.py; prints the part of the convolution's rate that the
step reaches, by medians over --repeats. The step's operations are those of its convolutions and matrix products
(torch.utils.flop_counter): all else it does counts as lost.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import in_turn
from benchmarks.step import noise_set, training_steps
from common.cli import cli
from common.datasets.voc import CLASSES
from common.loader import Loader
from common.models import MODELS, build, count_parameters
from common.run import Run

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def main(
    model: Literal[("all", *MODELS)] = "all",  # which network; encoders are ResNet-18, everything is trained
    image_size: int = 224,  # side of the square images, pixels
    batch_size: int = 8,  # images per step
    repeats: int = 5,  # times that each is measured
    clock: Literal["wall", "cpu"] = "wall",  # time, or processor time of all threads, for a machine that is shared
    run: Run = Run(),
):
    run = run.start(main, locals())
    steps = 10 if run.device.type == "cuda" else 1  # several, so that starting the first one counts little
    side = 8192 if run.device.type == "cuda" else 2048
    products = {}
    for name in ("fp32", "fp16" if run.precision == "fp16" else "bf16"):
        a, b = torch.rand(2, side, side, device=run.device).to(DTYPES[name])
        products[f"{name} matrix product"] = partial(torch.matmul, a, b)
    times = in_turn(products, repeats, run, CLOCKS[clock])
    ceilings = {name: 2 * side**3 / median for name, (_, median) in times.items()}
    print(f"\n{image_size}x{image_size}, batch {batch_size}, {run.precision}, TFLOP/s of {clock} time, torch", end=" ")
    print(torch.__version__ + "; " + ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in ceilings.items()))
    columns = ("parameters", "GFLOP/image", "images/s", "convolution", "step", "part")
    print(f"{'model':<14}" + "".join(f"{column:>13}" for column in columns))

    data = noise_set(batch_size, image_size)
    convolve, rows = convolution(batch_size, steps, run), {}
    for name in MODELS if model == "all" else [model]:
        network = build(name, len(CLASSES), encoder="resnet18", pretrained=False)
        step = training_steps(network, Loader(data, batch_size, run), run, steps)
        work = {"convolution": convolve, "step": step}
        flops = {key: flops_of(function) for key, function in work.items()}
        times = in_turn(work, repeats, run, CLOCKS[clock])
        rates = {key: flops[key] / times[key][1] for key in work}
        parameters, per_second = count_parameters(network), steps * batch_size / times["step"][1]
        rows[name] = {"parameters": parameters, **rates}
        print(
            f"{name:<14}{parameters:>13,}{flops['step'] / steps / batch_size / 1e9:>13.1f}{per_second:>13.4g}"
            f"{rates['convolution'] / 1e12:>13.3g}{rates['step'] / 1e12:>13.3g}"
            f"{rates['step'] / rates['convolution']:>13.1%}",
            flush=True,
        )
    return ceilings, rows


def convolution(batch_size: int, times: int, run: Run) -> Callable[[], None]:
    """Return a function with the U-Net's largest convolution at 224 pixels, forward and backward, so many `times`."""
    options = {"device": run.device, "dtype": DTYPES[run.precision], "memory_format": torch.channels_last}
    conv = nn.Conv2d(1024, 512, kernel_size=3, padding=1, bias=False).to(**options)
    x = torch.rand(batch_size, 1024, 28, 28).to(**options).requires_grad_()
    gradient = torch.rand(batch_size, 512, 28, 28).to(**options)

    def convolve() -> None:
        for _ in range(times):
            conv(x).backward(gradient)

    return convolve


def flops_of(function: Callable[[], object]) -> int:
    """Return the floating-point operations of `function`, two for each multiplication and addition."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


if __name__ == "__main__":
    cli(main)
