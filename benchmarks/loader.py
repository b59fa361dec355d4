"""How many images per second does our loader give, and how many do plain PyTorch loaders give?

Run       python benchmarks/loader.py
          python benchmarks/loader.py --augment all      # also rotate and crop

Loads the training images without training. Our loader takes turns with the plain loaders of benchmarks/reference.py:
with persistent workers, without workers, and with new workers in every epoch, as in tutorials. Prints images/s, medians
over --repeats epochs, and ratios to the best plain loader and to the tutorial's. Our first epoch decodes the files into
an empty cache and later epochs read the cache; plain loaders decode in every epoch. Finally compares the time of a
batch with the training step of the baseline FCN. Needs VOC 2007 below --data-root.
"""

import contextlib
import copy
import shutil
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.measure import in_turn, print_table
from benchmarks.reference import Augment, our_loaders, reference_loader, voc_part
from benchmarks.step import training_steps
from common.cli import cli
from common.datasets import Size
from common.models import BasicFCN
from common.run import Run, experiment

TUTORIAL, LATER = "plain loader, new workers each epoch", "this project, later epochs"


@experiment
def main(
    image_size: Size = 224,  # pixels
    images: int = 200,  # maximum number of training images
    batch_size: int = 16,  # images per step
    augment: Augment = "flip",  # "flip" mirrors images; "all" also rotates and crops them
    workers: int = 2,  # worker processes of the plain loaders; ours has none
    repeats: int = 5,  # epochs measured
    run: Run = Run(),
):
    with voc_part(run, {"train": images, "val": 1, "test": 1}) as run:
        fresh = copy.copy(run)
        fresh.cache_dir = run.cache_dir / "fresh"

        def first_epoch() -> None:
            shutil.rmtree(fresh.cache_dir, ignore_errors=True)
            with contextlib.redirect_stdout(None):  # hides the messages of `load`
                loader, _ = our_loaders(image_size, batch_size, augment, fresh)
            go_through(loader, run)

        loader, _ = our_loaders(image_size, batch_size, augment, run)
        plain = partial(reference_loader, "train", image_size, batch_size, augment, run=run)
        loaders = {f"plain loader, {n} workers": plain(n, persistent=True) for n in (workers, 0)}
        loaders[TUTORIAL] = plain(workers)
        candidates = {name: partial(go_through, loader, run) for name, loader in loaders.items()}
        candidates |= {"this project, first epoch": first_epoch, LATER: partial(go_through, loader, run)}
        times = in_turn(candidates, repeats, run, tutorial=TUTORIAL)
        step = training_steps(BasicFCN(loader.data.num_classes), loader, run)
        training = in_turn({LATER: candidates[LATER], "step": step}, repeats, run)

    title = f"{loader.num_images} images at {image_size}, batch {batch_size}, augmentation {augment}"
    rates = {name: loader.num_images / seconds for name, (_, seconds) in times.items()}
    rates = print_table(title, rates, list(loaders))
    step, batch = training["step"][1], training[LATER][1] / len(loader)
    print(f"a batch takes {1000 * batch:.2f} ms, the training step {1000 * step:.1f} ms: {batch / step:.1%} of it")
    return rates


def go_through(loader: Iterable, run: Run) -> None:
    """Move every batch of `loader` to the run's device."""
    for images, masks in loader:
        images.to(run.device), masks.to(run.device)


if __name__ == "__main__":
    cli(main)
