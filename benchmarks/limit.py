"""How close does training come to the compute and memory limits of this machine?

Run       python benchmarks/limit.py                      # every model, some minutes
          python benchmarks/limit.py --model unet --precision fp32
          python benchmarks/limit.py --write              # also to results/limit.json

First measures the machine: operations per second of a large matrix product and of the U-Net's largest convolution,
forward and backward; bytes per second of a 256 MiB copy. The training step of each model takes turns with them. Prints,
from medians over --repeats:

part       the step's operations per second, divided by those of the convolution
possible   images per second at the roofline: each operation of torch takes its floating-point operations at the larger
           of the two rates, or its bytes at the copy's rate, whichever is longer
share      the step's images per second, divided by the possible ones

Floating-point operations: those of convolutions and matrix products (torch.utils.flop_counter). Bytes: each operation
except views reads its inputs once and writes its outputs once. Real traffic is larger, for example batch normalisation
reads its input twice; but data in a cache can be read faster.
Williams, Waterman & Patterson, Roofline: An Insightful Visual Performance Model for Multicore Architectures, CACM 2009.
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
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import conv_flop_count, flop_registry

from benchmarks.measure import in_turn
from benchmarks.step import noise_set, training_steps
from common.cli import cli
from common.datasets.voc import CLASSES
from common.loader import Loader
from common.models import MODELS, build, count_parameters
from common.reporting.results import RESULTS, machine
from common.run import Run, experiment
from common.system.files import write_json

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@experiment
def main(
    model: Literal[("all", *MODELS)] = "all",  # network to measure; encoders are ResNet-18, all weights are trained
    image_size: int = 224,  # side of the square images, pixels
    batch_size: int = 8,  # images per step
    repeats: int = 5,  # number of measurements
    clock: Literal["wall", "cpu"] = "wall",  # wall time, or CPU time of all threads (for a shared machine)
    write: bool = False,  # write the table to results/limit.json
    run: Run = Run(),
):
    cuda = run.device.type == "cuda"
    steps, side = (10, 8192) if cuda else (1, 2048)  # with several steps, the launch overhead counts little
    a, b = torch.rand(2, side, side, device=run.device).to(DTYPES[run.precision])
    source, target = torch.ones(2, 2**26, device=run.device)
    data = noise_set(batch_size, image_size)
    machine_limits = {
        "product": partial(torch.matmul, a, b),
        "convolution": convolution(batch_size, steps, run),
        "copy": partial(target.copy_, source),
    }
    known = {key: operations(function) for key, function in machine_limits.items()}
    print(f"\n{image_size}x{image_size}, batch {batch_size}, {run.precision}, {clock} time, torch {torch.__version__}")
    print("GFLOP/s of the matrix product and the convolution, GB/s of the copy, and per image GFLOP and GB")
    columns = ("product", "convolution", "copy", "GFLOP", "GB", "images/s", "part", "possible", "share")
    print(f"{'':<14}" + "".join(f"{column:>12}" for column in columns))
    rows = {}
    for name in MODELS if model == "all" else [model]:
        network = build(name, len(CLASSES), encoder="resnet18", pretrained=False)
        step = training_steps(network, Loader(data, batch_size, run), run, steps)
        work, counts = machine_limits | {"step": step}, known | {"step": operations(step)}
        times = {key: median for key, (_, median) in in_turn(work, repeats, run, CLOCKS[clock]).items()}
        flops, nbytes = ({key: sum(c[i] for c in counted) for key, counted in counts.items()} for i in (0, 1))
        product, conv, reached = (flops[key] / times[key] for key in ("product", "convolution", "step"))
        copy, peak, count = 2 * source.nbytes / times["copy"], max(product, conv), steps * batch_size
        possible = sum(max(f / peak, b / copy) for f, b in counts["step"])
        rates = [product / 1e9, conv / 1e9, copy / 1e9, flops["step"] / count / 1e9, nbytes["step"] / count / 1e9]
        rates += [count / times["step"], reached / conv, count / possible, possible / times["step"]]
        rows[name] = {"parameters": count_parameters(network)}
        rows[name] |= {key: float(f"{rate:.4g}") for key, rate in zip(columns, rates, strict=True)}
        print(f"{name:<14}" + "".join(f"{rate:>12.3g}" for rate in rates), flush=True)
    if write:
        about = {"command": " ".join(["python benchmarks/limit.py", *sys.argv[1:]]), "precision": run.precision}
        about |= {"threads": torch.get_num_threads(), "machine": machine(), "torch": torch.__version__}
        write_json(RESULTS / "limit.json", about | {"rows": rows})
    return rows


def convolution(batch_size: int, times: int, run: Run) -> Callable[[], None]:
    """Return a function that runs the U-Net's largest convolution at 224 pixels `times` times, forward and backward."""
    options = {"device": run.device, "dtype": DTYPES[run.precision], "memory_format": torch.channels_last}
    conv = nn.Conv2d(1024, 512, kernel_size=3, padding=1, bias=False).to(**options)
    x = torch.rand(batch_size, 1024, 28, 28).to(**options).requires_grad_()
    gradient = torch.rand(batch_size, 512, 28, 28).to(**options)

    def convolve() -> None:
        for _ in range(times):
            conv(x).backward(gradient)

    return convolve


class Operations(TorchDispatchMode):
    """Context manager that counts floating-point operations and bytes of each torch operation, in `counts`."""

    def __init__(self):
        super().__init__()
        self.counts: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.__name__:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
            nbytes = sum(
                min(t.nbytes, t.untyped_storage().nbytes()) for t in tensors
            )  # the storage is smaller for expanded tensors
            flops = flop_registry.get(func.overloadpacket, lambda *_, **__: 0)(*args, **(kwargs or {}), out_val=out)
            if func.overloadpacket is torch.ops.aten.convolution_backward:  # torch's own count ignores groups
                gradient, x, weight, *_, transposed, _, _, wanted = args
                flops = conv_flop_count(x.shape, weight.shape, gradient.shape, transposed) * sum(wanted[:2])
            self.counts.append((flops, nbytes))
        return out


def operations(function: Callable[[], object]) -> list[tuple[int, int]]:
    """Return the floating-point operations and the bytes of each operation in `function`."""
    with Operations() as mode:
        function()
    return mode.counts


if __name__ == "__main__":
    cli(main)
