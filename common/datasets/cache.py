"""Decode a data set once; afterwards it is mapped from disk."""

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from common.datasets.segmentation_set import Source
from common.errors import UserError

FORMAT = 1  # raise it when what is written below changes
CHUNK = 256  # samples decoded but not yet written are at most this many


def decode_once(
    source: Source, dataset: str, split: str, size: tuple[int, int], cache_dir: Path, progress: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images (N, 3, H, W) and masks (N, H, W), uint8, of one split of `source`, resized to `size`.

    They are decoded by all processors at the first call and written to `cache_dir`; later calls map the files. A
    changed sample list, file (by size and time) or `size` leads to a new cache; so does a killed decoding, since the
    folder gets its name only when it is whole.

    Raises:
        UserError: from `source.read`; an empty split; a file that is missing; a cache that cannot be written.
    """
    samples = source.splits[split]
    if not samples:
        raise UserError(f"the {split} split of {dataset} is empty; it needs at least one image")
    height, width = size
    key = _fingerprint(samples, size)
    folder = cache_dir / f"{dataset}-{split}-{height}x{width}-{key}"
    if not folder.exists():
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        try:
            partial.mkdir(parents=True, exist_ok=True)
            _decode(source, samples, size, partial, f"decoding {dataset} {split}" if progress else None)
            partial.rename(folder)
        except OSError as error:
            if not folder.exists():  # it exists if another process was quicker: use that one
                raise UserError(f"cannot write the cache {folder}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    # Copy-on-write maps: torch warns about read-only ones, and nothing here writes to them.
    try:
        images, masks = (np.load(folder / f"{kind}.npy", mmap_mode="c") for kind in ("images", "masks"))
    except (OSError, ValueError, EOFError):
        images = masks = np.empty(0)
    if images.shape != (len(samples), height, width, 3) or masks.shape != images.shape[:-1]:
        raise UserError(f"the cache {folder} is damaged; delete that folder, and the images are decoded again")
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks)


def _decode(source: Source, samples: list, size: tuple[int, int], folder: Path, title: str | None) -> None:
    """Write images.npy (N, H, W, 3) and masks.npy (N, H, W) of `samples` to `folder`."""
    height, width = size

    def read(sample: tuple) -> tuple[bytes, bytes]:
        image, mask = source.read(sample)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        # Nearest for masks: the mean of classes 3 and 5 is not class 4.
        mask = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
        return image.tobytes(), mask.tobytes()

    with (
        open(folder / "images.npy", "wb") as images,
        open(folder / "masks.npy", "wb") as masks,
        ThreadPoolExecutor(os.cpu_count()) as pool,  # Pillow decodes and resizes outside Python's lock
        tqdm(total=len(samples), desc=title, unit="image", disable=None if title else True, leave=False) as bar,
    ):
        for file, shape in ((images, (len(samples), height, width, 3)), (masks, (len(samples), height, width))):
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for start in range(0, len(samples), CHUNK):
            for image, mask in pool.map(read, samples[start : start + CHUNK]):
                images.write(image)
                masks.write(mask)
                bar.update()


def _fingerprint(samples: list[tuple], size: tuple[int, int]) -> str:
    """Return 16 hexadecimal digits that change with the samples, their files and `size`."""
    digest = hashlib.sha256(repr((FORMAT, size)).encode())
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
