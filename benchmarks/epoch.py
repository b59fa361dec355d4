"""How long does an epoch take, loading, training, validation and scores included, and how long elsewhere?

Run       python benchmarks/epoch.py                                    # the baseline FCN
          python benchmarks/epoch.py --model unet --batch-size 8
          python benchmarks/epoch.py --precision fp32                   # without bf16
          python benchmarks/epoch.py --compile                          # and with torch.compile
          python benchmarks/epoch.py --external nets/unet.py:UNet       # and with a network of your own

Trains and validates a network for an epoch, in turn with `train_one_epoch` and `evaluate` of common/engine.py and with
the loops of benchmarks/reference.py: the best plain one, with workers that live on and with none, and the tutorial's.
Prints images/s, medians over --repeats epochs, and their ratios to the best of these and to the tutorial's. The first
epoch of each is not counted, nor is the decoding that ours needs once; both are printed. The images are those of VOC
2007 below --data-root, or generated ones of their size.

--external FILE:CLASS adds a network in our loop: the class is called with the number of classes, or, in quotes, as you
write it: "unet/unet_model.py:UNet(3, 21)". It maps images (B, 3, H, W) to logits (B, classes, H, W).
"""

import importlib
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import nn

from benchmarks.measure import Clock, in_turn, print_table
from benchmarks.reference import Augment, our_loaders, plain_memory, reference_epoch, reference_loader
from benchmarks.voc_part import voc_part
from common.cli import cli
from common.datasets import Size
from common.engine import evaluate, train_one_epoch
from common.loader import Loader
from common.losses import CrossEntropy
from common.models import Model, build
from common.run import Run
from common.system.errors import UserError

TUTORIAL, OUR_LOOP, COMPILED = "tutorial loop, fp32", "this project", "this project, compiled"


def main(
    model: Model = "basic_fcn",  # network, from random weights
    external: str = "",  # FILE:CLASS of another network, to be timed in our loop
    image_size: Size = 224,  # pixels
    images: int = 60,  # images to train on, at most, and as many to validate on
    batch_size: int = 16,  # images per step
    augment: Augment = "all",  # training images are mirrored ("flip"), and rotated and cropped ("all")
    workers: int = 2,  # processes that load data for the plain loops, where these have any; ours has none
    repeats: int = 3,  # epochs measured
    clock: Clock = "wall",  # time, or the processor time of all processes, for a machine that does other things
    run: Run = Run(),
):
    run = run.start(main, locals())
    with voc_part(run, {"train": images, "val": images, "test": 1}) as part:
        start = time.perf_counter()
        loaders = our_loaders(image_size, batch_size, augment, part, run)
        decoding = time.perf_counter() - start
        train_set, val_set = (loader.data for loader in loaders)
        network = partial(build, model, train_set.num_classes, encoder="resnet18", pretrained=False)

        def plain_epoch(network: nn.Module, workers: int, best: bool) -> Callable[[], float]:
            optimizer = torch.optim.AdamW(network.parameters(), fused=best)
            plain = [
                reference_loader(part.data_root, split, image_size, batch_size, augment, workers, run, persistent=best)
                for split in ("train", "val")
            ]
            return partial(reference_epoch, network, optimizer, *plain, run, best=best)

        epochs = {
            f"best plain loop, {n} workers": plain_epoch(network().to(run.device), n, best=True) for n in (workers, 0)
        }
        epochs[TUTORIAL] = plain_epoch(network().to(run.device), workers, best=False)
        names = list(epochs)
        epochs[OUR_LOOP] = our_epoch(network(), *loaders, run)
        if run.compile:
            epochs[COMPILED] = our_epoch(torch.compile(network()), *loaders, run)
        if external:
            epochs[external] = our_epoch(load_external(external, train_set.num_classes), *loaders, run)
        times = in_turn(epochs, repeats, clock, run, {TUTORIAL: plain_memory})

    total = len(train_set) + len(val_set)
    title = f"{model}, {len(train_set)} + {len(val_set)} images at {image_size}, batch {batch_size}, {run.precision}"
    rates = {name: total / median for name, (_, median) in times.items()}
    rates = print_table(title, f"images per second of {clock} time", rates, names)
    first = ", ".join(f"{name} {first:.1f} s" for name, (first, _) in times.items())
    print(f"not counted: the first epoch of each ({first}), decoding once ({decoding:.1f} s)")
    if run.compile:
        (_, plain_s), (first_s, later_s) = times[OUR_LOOP], times[COMPILED]
        cost, gain = first_s - later_s, plain_s - later_s
        after = f"after {math.ceil(cost / gain)} epochs" if gain > 0 else "never"
        print(f"compiling costs {cost:.1f} s and gains {gain:.2f} s an epoch: it pays off {after}")
    return rates


def our_epoch(network: nn.Module, train_loader: Loader, val_loader: Loader, run: Run) -> Callable[[], float]:
    """Return a function that trains `network` for an epoch and validates it, as `fit` does; it returns the mIoU."""
    network.to(run.device, memory_format=torch.channels_last)
    optimizer, criterion = torch.optim.AdamW(network.parameters(), fused=True), CrossEntropy().to(run.device)

    def epoch() -> float:
        train_loader.set_epoch(train_loader.epoch + 1)
        _, matrix = train_one_epoch(network, train_loader, criterion, optimizer, None, run)
        matrix.mean_iou()
        _, matrix = evaluate(network, val_loader, criterion, run)
        return matrix.mean_iou()

    return epoch


def load_external(text: str, num_classes: int) -> nn.Module:
    """Return the network that `text` names, FILE:CLASS or FILE:CLASS(ARGUMENTS). The code in the file is run.

    Raises:
        UserError: there is no such file or class, or the network cannot be built.
    """
    file, _, name = text.rpartition(":")
    path = Path(file).resolve()
    if not path.is_file() or not name:
        raise UserError(f"--external {text} must be FILE:CLASS, and {file or text} is no file")
    parts, folder = [path.stem], path.parent
    while (folder / "__init__.py").exists():  # a file of a package may import its neighbours
        parts.insert(0, folder.name)
        folder = folder.parent
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(".".join(parts))
        network = eval(name if "(" in name else f"{name}({num_classes})", vars(module))
    except Exception as error:  # whatever someone else's file raises
        raise UserError(f"--external {text} cannot be built ({type(error).__name__}: {error})") from None
    finally:
        sys.path.remove(str(folder))
    if not isinstance(network, nn.Module):
        raise UserError(f"--external {text} is no torch.nn.Module, but a {type(network).__name__}")
    return network


if __name__ == "__main__":
    cli(main)
