"""Decoding that is killed, repeated, done twice at once, or meets a full disk."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, started
from PIL import Image

from common.datasets import Source, load
from common.datasets.cache import decode_once
from common.errors import UserError

COUNT, SIDE = 40, 8

# A program that decodes forty numbered images slowly, and notes each image that it reads.
PROGRAM = f"""
import os, sys, time
sys.path[:0] = [{str(REPOSITORY)!r}, {str(REPOSITORY / "tests")!r}]
import test_cache
test_cache.decode(seconds=float(sys.argv[1]))
"""


def decode(seconds: float = 0, count: int = COUNT) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode numbered images to the folder "cache", `seconds` each, four to a chunk."""

    def read(sample):
        time.sleep(seconds)
        with open("read", "a") as file:
            file.write(f"{sample[1]}\n")
        rng = np.random.default_rng(sample[1])
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        return Image.fromarray(pixels), np.full((SIDE, SIDE), sample[1], dtype=np.uint8)

    sys.modules["common.datasets.cache"].CHUNK = 4
    source = Source(("a",), ((0, 0, 0),), {"train": [(str(i), i) for i in range(count)]}, read)
    return decode_once(source, "numbers", "train", (SIDE, SIDE), Path("cache"), progress=False)


@pytest.fixture(autouse=True)
def chunk_as_before(monkeypatch):
    module = sys.modules["common.datasets.cache"]
    monkeypatch.setattr(module, "CHUNK", module.CHUNK)


def start(seconds: float) -> subprocess.Popen:
    """Start the program above in the current folder."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(seconds)],
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C; this one shall not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def read_so_far() -> list[int]:
    """Return the numbers of the images that were read, forgetting them."""
    numbers = [int(line) for line in Path("read").read_text().split()] if Path("read").exists() else []
    Path("read").unlink(missing_ok=True)
    return numbers


def stop_after(samples: int, number: int) -> None:
    """Start decoding in another process, and send it signal `number` when so many images are safe."""
    process = start(seconds=0.02)
    record, deadline = "cache/.numbers*.part/progress.json", time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        paths = list(Path().glob(record))
        if paths and json.loads(paths[0].read_text())["samples"] >= samples:
            break
        time.sleep(0.005)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert len(read_so_far()) < COUNT


def part() -> Path:
    """Return the folder that an interrupted decoding has left."""
    (path,) = Path("cache").glob(".numbers*.part")
    return path


def is_right(result: tuple[torch.Tensor, torch.Tensor]) -> bool:
    """Return whether images and masks are those of a decoding that nobody disturbed."""
    shutil.rmtree("cache")
    right = all(map(torch.equal, result, decode()))
    read_so_far()
    return right


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_a_decoding_that_was_stopped_goes_on_where_it_was(name):
    stop_after(12, getattr(signal, name))
    assert [path.name for path in Path("cache").iterdir() if not path.name.startswith(".")] == []
    safe = json.loads((part() / "progress.json").read_text())["samples"]
    assert 12 <= safe < COUNT
    result = [tensor.clone() for tensor in decode()]
    assert sorted(read_so_far()) == list(range(safe, COUNT))  # no image twice
    assert not list(Path("cache").glob(".numbers*"))
    assert is_right(result)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "images cut short": lambda: os.truncate(part() / "images.npy", 500),
    "masks cut short": lambda: os.truncate(part() / "masks.npy", 100),
    "a bit of an image flipped": lambda: flip(part() / "images.npy"),
    "masks missing": lambda: (part() / "masks.npy").unlink(),
    "record missing": lambda: (part() / "progress.json").unlink(),
    "record ahead of the images": lambda: (part() / "progress.json").write_text('{"samples": 39, "crc32": [1, 2]}'),
    "record no JSON": lambda: (part() / "progress.json").write_text("{"),
    "record of something else": lambda: (part() / "progress.json").write_text("[1]"),
}


def test_a_damaged_part_is_decoded_again():
    stop_after(8, signal.SIGKILL)
    shutil.copytree("cache", "stopped")
    for name, damage in DAMAGE.items():
        shutil.rmtree("cache")
        shutil.copytree("stopped", "cache")
        damage()
        result = [tensor.clone() for tensor in decode()]
        assert sorted(read_so_far()) == list(range(COUNT)), name
        assert is_right(result), name


def test_the_part_of_other_images_is_not_used():
    stop_after(8, signal.SIGKILL)
    assert len(decode(count=30)[0]) == 30
    assert sorted(read_so_far()) == list(range(30))


def test_what_was_written_after_the_last_record_is_written_again():
    stop_after(8, signal.SIGKILL)
    for kind in ("images", "masks"):
        with open(part() / f"{kind}.npy", "ab") as file:
            file.write(b"x" * 77)
    assert is_right([tensor.clone() for tensor in decode()])


@pytest.mark.slow
def test_of_two_processes_one_decodes_and_both_get_the_images():
    processes = [start(seconds=0.02) for _ in range(2)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert sorted(read_so_far()) == list(range(COUNT))
    assert "waiting for another process" in "".join(errors)
    assert [path.suffix for path in Path("cache").iterdir()] != [".lock"]
    assert is_right([tensor.clone() for tensor in decode()])


def test_a_disk_that_fills_while_images_are_decoded_ends_in_a_sentence_and_gets_its_space_back():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does by itself
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))  # no file may grow beyond: a small disk
        with pytest.raises(UserError, match=r"cannot write the cache cache/numbers-train\S+: ") as error:
            decode()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(error.value)
    assert [path.suffix for path in Path("cache").iterdir()] == [".lock"]
    assert is_right([tensor.clone() for tensor in decode()])


def test_images_that_cannot_fit_the_disk_are_refused_before_any_is_decoded():
    if shutil.disk_usage(".").free > 600 << 30:
        pytest.skip("this disk has room for 600 images of a GiB each")
    with pytest.raises(UserError, match=r"need 614400 MiB in \.cache, where \d+ MiB are free; make room"):
        load("shapes", 16384, started())
