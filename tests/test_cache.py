"""Decoding that is stopped, done twice at once, or meets a full disk."""

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

from common.datasets import DatasetSpec, load
from common.datasets.cache import decode_once
from common.system.errors import UserError

COUNT, SIDE = 40, 8

# A program that calls `decode` below. A shell's background jobs ignore Ctrl-C; this one shall not.
PROGRAM = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = [{str(REPOSITORY)!r}, {str(REPOSITORY / "tests")!r}]
import test_cache
test_cache.decode({{}})
"""


def decode(seconds: float = 0, signals: tuple = ()) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode numbered images to the folder "cache", `seconds` each; at the tenth one, get the `signals`."""

    def read(sample):
        time.sleep(seconds)
        for number in signals if sample[1] == 9 else ():
            os.kill(os.getpid(), number)
        rng = np.random.default_rng(sample[1])
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        return Image.fromarray(pixels), np.full((SIDE, SIDE), sample[1], dtype=np.uint8)

    spec = DatasetSpec(("a",), ((0, 0, 0),), {"train": [(str(i), i) for i in range(COUNT)]}, read_sample=read)
    return decode_once(spec, "numbers", "train", (SIDE, SIDE), Path("cache"), progress=False)


def start(arguments: str) -> subprocess.Popen:
    """Start the program above in the current folder."""
    return subprocess.Popen([sys.executable, "-c", PROGRAM.format(arguments)], stderr=subprocess.PIPE)


def in_cache() -> list[str]:
    return [path.name for path in Path("cache").iterdir()]


def check(result: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Check that images and masks are those of `decode`, in order."""
    images, masks = result
    assert masks[:, 0, 0].tolist() == list(range(COUNT))
    for i, image in enumerate(images):
        pixels = np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        assert np.array_equal(image.permute(1, 2, 0), pixels)


def test_an_interrupted_decoding_leaves_nothing_and_is_done_again():
    _, errors = start("0.01, [2]").communicate(timeout=60)
    assert errors.strip().endswith(b"KeyboardInterrupt") and in_cache() == []
    check(decode())


def test_what_a_killed_decoding_leaves_is_not_used_and_goes_after_a_day():
    start("0.01, [9]").communicate(timeout=60)
    (left,) = Path("cache").iterdir()
    check(decode())
    assert len(in_cache()) == 2
    os.utime(left, (0, 0))
    shutil.rmtree(next(Path("cache").glob("numbers*")))
    check(decode())
    assert not left.exists()


@pytest.mark.slow
def test_two_processes_that_decode_at_once_do_not_disturb_each_other():
    processes = [start("0.05") for _ in range(2)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert len(in_cache()) == 1
    check(decode())


def test_of_processes_that_finish_at_the_same_moment_one_names_the_cache(monkeypatch):
    rename = Path.rename

    def overtaken(part: Path, folder: Path) -> None:  # by another process, after all that could be asked before
        shutil.copytree(part, folder)
        rename(part, folder)

    monkeypatch.setattr(Path, "rename", overtaken)
    check(decode())
    assert len(in_cache()) == 1


def test_a_disk_that_fills_while_images_are_decoded_ends_in_a_sentence_and_gets_its_space_back():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does by itself
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))  # no file may grow beyond: a small disk
        with pytest.raises(UserError, match=r"cannot write the cache cache/numbers-train\S+: ") as error:
            decode()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(error.value) and in_cache() == []
    check(decode())


def test_images_that_cannot_fit_the_disk_are_refused_before_any_is_decoded():
    if shutil.disk_usage(".").free > 3000 << 30:
        pytest.skip("this disk has room for 3000 images of a GiB each")
    with pytest.raises(UserError, match=r"\.cache has no room for 3072000 MiB of decoded images; name another --cache"):
        load("shapes", 16384, started())
