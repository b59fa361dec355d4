"""Decode a data set once; afterwards it is mapped from disk."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from common.datasets.segmentation_set import Source
from common.errors import UserError
from common.files import locked, write_json

FORMAT = 2  # raise it when what is written below changes
CHUNK = 256  # samples that are decoded but not yet safe from a kill are at most this many,
CHUNK_BYTES = 64 << 20  # and take at most this much memory
RECORD = "progress.json"


def decode_once(
    source: Source, dataset: str, split: str, size: tuple[int, int], cache_dir: Path, progress: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images (N, 3, H, W) and masks (N, H, W), uint8, of one split of `source`, resized to `size`.

    They are decoded by all processors at the first call and written to `cache_dir`; later calls map the files. A
    changed sample list, file (by size and time) or `size` leads to a new cache. If decoding is interrupted or killed,
    the next call goes on from there. Of several processes one decodes, and the others wait for it.

    Raises:
        UserError: from `source.read`; an empty split; a file that is missing; a cache that cannot be written.
    """
    samples = source.splits[split]
    if not samples:
        raise UserError(f"the {split} split of {dataset} is empty; it needs at least one image")
    height, width = size
    key = fingerprint(samples, size)
    folder = cache_dir / f"{dataset}-{split}-{height}x{width}-{key}"
    if not folder.exists():
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            with locked(folder.with_name(f".{folder.name}.lock")):
                if not folder.exists():  # another process may have made it while this one waited
                    _decode(source, samples, size, folder, f"decoding {dataset} {split}" if progress else None)
        except OSError as error:
            raise UserError(f"cannot write the cache {folder}: {error.strerror or error}") from error
    # Copy-on-write maps: torch warns about read-only ones, and nothing here writes to them.
    try:
        images, masks = (np.load(folder / f"{kind}.npy", mmap_mode="c") for kind in ("images", "masks"))
    except (OSError, ValueError, EOFError):
        images = masks = np.empty(0)
    if images.shape != (len(samples), height, width, 3) or masks.shape != images.shape[:-1]:
        raise UserError(f"the cache {folder} is damaged; delete that folder, and the images are decoded again")
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks)


def _decode(source: Source, samples: list, size: tuple[int, int], folder: Path, title: str | None) -> None:
    """Write images.npy (N, H, W, 3) and masks.npy (N, H, W) of `samples` to `folder`, which is whole or not there.

    Until it is whole it has another name. An interrupt or a kill leaves it for the next call to go on with; an error
    removes it: a full disk gets its space back, and a file that must be mended changes the cache's name anyway.
    """
    part = folder.with_name(f".{folder.name}.part")
    try:
        part.mkdir(exist_ok=True)
        _fill(part, source, samples, size, title)
        part.rename(folder)
    except Exception:  # KeyboardInterrupt is none
        shutil.rmtree(part, ignore_errors=True)
        raise


def _fill(part: Path, source: Source, samples: list, size: tuple[int, int], title: str | None) -> None:
    """Decode what is not yet in the folder `part`."""
    height, width = size
    paths = (part / "images.npy", part / "masks.npy")
    headers = (_header((len(samples), height, width, 3)), _header((len(samples), height, width)))
    lengths = (3 * height * width, height * width)  # bytes of a sample

    def read(sample: tuple) -> tuple[bytes, bytes]:
        image, mask = source.read(sample)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        # Nearest for masks: the mean of classes 3 and 5 is not class 4.
        mask = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
        return image.tobytes(), mask.tobytes()

    def ends(count: int) -> list[int]:
        return [len(header) + count * length for header, length in zip(headers, lengths, strict=True)]

    done, checksums = _recorded(part)
    if [_checksum(path, end) for path, end in zip(paths, ends(done), strict=True)] != checksums:
        done = 0  # nothing there, or not what was written
        for path, header in zip(paths, headers, strict=True):
            path.write_bytes(header)
        checksums = [zlib.crc32(header) for header in headers]
    needed, free = sum(ends(len(samples))) - sum(ends(done)), shutil.disk_usage(part).free
    if needed > free:
        raise UserError(
            f"the decoded images need {needed >> 20} MiB in {part.parent}, where {free >> 20} MiB are free; make room, "
            "or name a folder on another disk with --cache-dir"
        )
    chunk = min(CHUNK, max(1, CHUNK_BYTES // sum(lengths)))
    with (
        contextlib.ExitStack() as stack,
        ThreadPoolExecutor(os.cpu_count()) as pool,  # Pillow decodes and resizes outside Python's lock
        tqdm(total=len(samples), initial=done, desc=title, unit="image", disable=None if title else True, leave=False)
        as bar,
    ):  # fmt: skip
        files = [stack.enter_context(open(path, "r+b")) for path in paths]
        for file, end in zip(files, ends(done), strict=True):
            file.truncate(end)
            file.seek(end)
        for start in range(done, len(samples), chunk):
            for sample in pool.map(read, samples[start : start + chunk]):
                for i, data in enumerate(sample):
                    files[i].write(data)
                    checksums[i] = zlib.crc32(data, checksums[i])
                bar.update()
            for file in files:
                file.flush()
            write_json(part / RECORD, {"samples": min(start + chunk, len(samples)), "crc32": checksums})
        for file in files:
            os.fsync(file.fileno())  # before the folder gets its name: that must not outlive its contents


def _recorded(part: Path) -> tuple[int, list[int]]:
    """Return how many samples an interrupted decoding has left in `part`, and the checksums of both files with them."""
    try:
        record = json.loads((part / RECORD).read_text())
        return int(record["samples"]), record["crc32"]
    except (OSError, ValueError, TypeError, KeyError):
        return 0, []


def _checksum(path: Path, length: int) -> int | None:
    """Return the CRC-32 of the first `length` bytes of the file at `path`; None if it has fewer, or is not there."""
    checksum = 0
    try:
        with open(path, "rb") as file:
            while length > 0 and (block := file.read(min(length, 1 << 20))):
                checksum = zlib.crc32(block, checksum)
                length -= len(block)
    except OSError:
        return None
    return None if length else checksum


def _header(shape: tuple[int, ...]) -> bytes:
    """Return how a .npy file of uint8 begins."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


def fingerprint(samples: list[tuple], size: tuple[int, int]) -> str:
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
