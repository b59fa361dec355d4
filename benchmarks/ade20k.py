"""What does a set as large as ADE20K cost: to decode once, and then to read in every epoch, with little memory?

Run       python benchmarks/ade20k.py                     # 20,000 images of 512 px, some minutes, 4 GB of disk
          python benchmarks/ade20k.py --images 500        # a quick look

Writes generated images in ADE20K's layout below --cache-dir, decodes them to the cache at --image-size, and prints
rate, busy cores and peak memory. Then reads an epoch from the cache twice: with all memory, and with at most --cap MiB
of it, by making the system forget all that was read whenever that much came from the disk. Last, a batch is set against
a training step of ADEUNet. Needs Linux, and a cache on a real disk.

The images are --different scenes under many names (hard links): decoding costs the same, reading their files less.
"""

import ctypes
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from PIL import Image

from benchmarks.measure import in_turn
from benchmarks.step import training_steps
from common.augment import random_hflip
from common.cli import cli
from common.datasets import SegmentationSet, load
from common.datasets.shapes import draw_scene
from common.loader import Loader
from common.models import ADEUNet
from common.run import Run
from common.system.errors import UserError


def main(
    images: int = 20_000,  # training and validation images
    side: int = 512,  # of the images as files, pixels
    image_size: int = 128,  # of the images in the cache, pixels
    different: int = 200,  # scenes that the images show
    cap: int = 256,  # MiB of the cache that may be in memory
    batch_size: int = 5,  # images per step
    repeats: int = 5,  # training steps measured
    run: Run = Run(),
):
    if min(images, different) < 1:
        raise UserError("--images and --different must be at least 1")
    run = run.start(main, locals())
    run.cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=run.cache_dir, prefix="benchmark-") as folder:
        write_set(Path(folder), images, side, min(different, images))
        run.data_root, run.cache_dir = Path(folder), Path(folder, "cache")

        wall, busy = time.perf_counter(), cpu_seconds()
        train_set, _, _ = load("ade20k", image_size, run)
        wall, busy = time.perf_counter() - wall, cpu_seconds() - busy
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"decoding: {images / wall:.0f} images/s, {busy / wall:.2f} of {os.cpu_count()} cores busy, {wall:.0f} s")
        print(f"peak memory so far: {peak:.0f} MiB, Python and torch included")

        loader = Loader(train_set, batch_size, run, shuffle=True, augment=[random_hflip])
        size = (train_set.images.nbytes + train_set.masks.nbytes) / 2**20
        for batch in loader:  # once, so that all is in memory if it fits
            del batch
        free_ms = epoch(loader)
        read, forgotten, capped_ms = capped_epoch(loader, Path(folder, "cache"), cap)
        print(f"the training set in the cache takes {size:.0f} MiB; an epoch of {len(loader)} batches of {batch_size}:")
        print(f"  all memory    {free_ms:.2f} ms a batch, {1000 * batch_size / free_ms:.0f} images/s")
        print(f"  {cap:>4} MiB      {capped_ms:.2f} ms a batch, {1000 * batch_size / capped_ms:.0f} images/s; "
              f"{read:.0f} MiB came from the disk, forgotten {forgotten} times")  # fmt: skip
        step = training_steps(ADEUNet(train_set.num_classes), loader, run)
        step_ms = 1000 * in_turn({"step": step}, repeats, "wall", run)["step"][1]
        print(f"a training step of ADEUNet takes {step_ms:.0f} ms, of which a batch is {free_ms / step_ms:.2%}, "
              f"with the cap {capped_ms / step_ms:.2%}")  # fmt: skip


def write_set(root: Path, images: int, side: int, different: int) -> None:
    """Write `images` training and ten validation images of ADE20K's layout below `root`."""
    folder = root / "ADEChallengeData2016"
    for split, name, count in (("training", "ADE_train", images), ("validation", "ADE_val", 10)):
        for kind in ("images", "annotations"):
            (folder / kind / split).mkdir(parents=True)
        for i in range(count):
            image, mask = (folder / kind / split / f"{name}_{i + 1:08}" for kind in ("images", "annotations"))
            image, mask = image.with_suffix(".jpg"), mask.with_suffix(".png")
            if i < different:
                picture, classes = draw_scene(i, side)
                picture.save(image, quality=85)
                labels = np.where(classes < 6, classes * 25 + i % 25, 0).astype(np.uint8)
                Image.fromarray(labels).save(mask)
            else:
                for path in (image, mask):
                    os.link(path.with_name(f"{name}_{i % different + 1:08}{path.suffix}"), path)


def epoch(loader: Loader) -> float:
    """Return the milliseconds that a batch takes, on average over an epoch."""
    start = time.perf_counter()
    for batch in loader:
        del batch
    return 1000 * (time.perf_counter() - start) / len(loader)


def capped_epoch(loader: Loader, cache: Path, cap: int) -> tuple[float, int, float]:
    """Read an epoch with at most `cap` MiB of the cache in memory.

    Returns:
        MiB that came from the disk, how often all was forgotten, and milliseconds a batch, the forgetting not counted.
    """
    files = [*cache.rglob("images.npy"), *cache.rglob("masks.npy")]
    forget(loader.data, files)
    first = since = read_from_disk()
    forgotten, away, start = 0, 0.0, time.perf_counter()
    for batch in loader:
        del batch
        if read_from_disk() - since > cap:
            before = time.perf_counter()
            forget(loader.data, files)
            forgotten, since = forgotten + 1, read_from_disk()
            away += time.perf_counter() - before
    seconds = time.perf_counter() - start - away
    return read_from_disk() - first, forgotten, 1000 * seconds / len(loader)


def forget(data: SegmentationSet, files: list[Path]) -> None:
    """Take the mapped pages of `data` from this process, then the pages of `files` from the system's memory."""
    page, dont_need = os.sysconf("SC_PAGE_SIZE"), 4
    for tensor in (data.images, data.masks):
        start = tensor.data_ptr() // page * page
        length = tensor.data_ptr() + tensor.nbytes - start
        if ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), dont_need):
            raise OSError("madvise failed")
    for path in files:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_from_disk() -> float:
    """Return the MiB that this process has had read from a disk."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"]) / 2**20


def cpu_seconds() -> float:
    """Return the processor time of this process and its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    cli(main)
