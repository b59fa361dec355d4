"""Decode a data set once; later runs map it from disk."""

import contextlib
import hashlib
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from common.datasets.segmentation_set import DatasetSpec
from common.system.errors import UserError

FORMAT = 2  # of the cache files; increase it when they change
DAY = 24 * 3600  # seconds


def decode_once(
    spec: DatasetSpec, dataset: str, split: str, size: tuple[int, int], cache_dir: Path, progress: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images (N, 3, H, W) and masks (N, H, W), uint8, of one split of `spec`, resized to `size`.

    The first call decodes them on all CPU cores and writes them to `cache_dir`; later calls map these files. A new list
    of samples, label map or `size`, or a file with another size or time, leads to a new cache.

    Raises:
        UserError: from `spec.read`; an empty split; a missing file; a cache that cannot be written.
    """
    samples = spec.splits[split]
    if not samples:
        raise UserError(f"the {split} split of {dataset} is empty; it needs at least one image")
    folder = cache_dir / f"{dataset}-{split}-{size[0]}x{size[1]}-{fingerprint(samples, size, spec.label_map)}"
    if not folder.exists():
        try:
            _decode(spec, samples, size, folder, f"decoding {dataset} {split}" if progress else None)
        except OSError as error:
            reason = f"{error.strerror or error}; name another --cache-dir"
            raise UserError(f"cannot write the cache {folder}: {reason}") from error
    # Copy-on-write, because torch warns about read-only maps. Nothing writes to them.
    try:
        images, masks = (np.load(folder / f"{kind}.npy", mmap_mode="c") for kind in ("images", "masks"))
    except (OSError, ValueError, EOFError):
        raise UserError(f"the cache {folder} is damaged; delete it, and run this again") from None
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks)


def _decode(spec: DatasetSpec, samples: list, size: tuple[int, int], folder: Path, title: str | None) -> None:
    """Write images.npy (N, H, W, 3) and masks.npy (N, H, W) to `folder`, which is complete or absent afterwards."""
    height, width = size
    shapes = {"images": (len(samples), height, width, 3), "masks": (len(samples), height, width)}
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}-*"):  # left by a killed process
        if time.time() - left.stat().st_mtime > DAY:
            shutil.rmtree(left, ignore_errors=True)
    needed = 4 * len(samples) * height * width >> 20
    if needed > shutil.disk_usage(folder.parent).free >> 20:
        raise UserError(f"{folder.parent} has no room for {needed} MiB of decoded images; name another --cache-dir")
    part = folder.with_name(f".{folder.name}-{os.getpid()}")  # each process has its own
    lock = threading.Lock()

    def write(index: int) -> None:
        image, mask = resized(*spec.read(samples[index]), size)
        with lock:
            for file, start, data in zip(files, starts, (image.tobytes(), mask.tobytes()), strict=True):
                file.seek(start + index * len(data))
                file.write(data)

    try:
        part.mkdir(exist_ok=True)
        paths = [part / f"{kind}.npy" for kind in shapes]
        # The map only writes the header. Writing pixels to a map would end in SIGBUS on a full disk.
        starts = [np.lib.format.open_memmap(p, "w+", "u1", shapes[p.stem]).offset for p in paths]
        with contextlib.ExitStack() as stack, ThreadPoolExecutor(os.cpu_count()) as pool:
            files = [stack.enter_context(open(path, "r+b")) for path in paths]
            writes = pool.map(write, range(len(samples)))  # threads suffice: Pillow releases the GIL
            for _ in tqdm(writes, title, len(samples), unit="image", disable=not title or None, leave=False):
                pass
            for file in files:
                file.flush()
                os.fsync(file.fileno())  # the contents must be on disk before the folder gets its final name
        try:
            part.rename(folder)
        except OSError:
            if not folder.exists():  # if it does, another process was faster
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def resized(image: Image.Image, mask: np.ndarray, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """Return an image and its mask (H, W) uint8 resized to `size` (height, width)."""
    # Nearest neighbour for masks: the mean of classes 3 and 5 is not class 4.
    mask = Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST)
    return image.resize(size[::-1], Image.Resampling.BILINEAR), mask


def fingerprint(samples: list[tuple], *others: object) -> str:
    """Return a hash of the samples, the sizes and times of their files, and `others`: 16 hexadecimal digits."""
    digest = hashlib.sha256(repr((FORMAT, *others)).encode())
    for sample in samples:
        for item in sample:
            digest.update(str(item).encode(errors="surrogateescape"))
            if isinstance(item, Path):
                try:
                    status = item.stat()
                except OSError:
                    raise UserError(f"{item} is missing, though the list of samples names {sample[0]}") from None
                digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]
