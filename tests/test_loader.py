import ctypes
import mmap
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import started

from common.augment import random_hflip, random_resized_crop, random_rotated_crop
from common.datasets import SegmentationSet
from common.loader import Loader
from common.system.errors import UserError


def numbered_set(count: int, side: int = 4) -> SegmentationSet:
    """Return a set whose image number i has the value i everywhere but for a left-to-right ramp in its mask."""
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, side, side, 3).contiguous()
    masks = torch.arange(side, dtype=torch.uint8).expand(count, side, side).contiguous()
    names = [str(i) for i in range(count)]
    return SegmentationSet(images.permute(0, 3, 1, 2), masks, names, ("a", "b"), ((0, 0, 0),) * 2, "numbers", "train")


def numbers(loader: Loader) -> list[list[int]]:
    """Return the numbers of the images in each batch."""
    return [(images[:, 0, 0, 0] * 255).round().int().tolist() for images, _ in loader]


@pytest.mark.parametrize(("count", "batch_size", "copies"), [(10, 4, 1), (17, 16, 1), (5, 2, 3), (3, 8, 1)])
def test_every_image_comes_exactly_copies_times_in_near_equal_batches(count, batch_size, copies):
    loader = Loader(numbered_set(count), batch_size, started(), shuffle=True, copies=copies)
    batches = numbers(loader)
    assert sorted(i for batch in batches for i in batch) == sorted(list(range(count)) * copies)
    assert len(batches) == len(loader) == -(-count * copies // batch_size)
    assert max(map(len, batches)) - min(map(len, batches)) <= 1
    assert max(map(len, batches)) <= batch_size


def test_batches_are_floats_from_0_to_1_in_channels_last_layout_with_int64_masks():
    images, masks = next(iter(Loader(numbered_set(3), 3, started())))
    assert images.dtype == torch.float32 and masks.dtype == torch.int64
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.shape == (3, 3, 4, 4) and masks.shape == (3, 4, 4)
    torch.testing.assert_close(images[2], torch.full((3, 4, 4), 2 / 255))


def test_order_and_augmentation_depend_on_seed_and_epoch_alone():
    def epoch(number: int, seed: int = 0) -> list[torch.Tensor]:
        loader = Loader(numbered_set(9), 4, started(seed=seed), shuffle=True, augment=[random_hflip])
        loader.set_epoch(number)
        return [torch.cat([images.flatten(), masks.flatten().float()]) for images, masks in loader]

    def order(number: int) -> list[list[int]]:
        loader = Loader(numbered_set(30), 8, started(), shuffle=True)
        loader.set_epoch(number)
        return numbers(loader)

    assert order(2) == order(2) != order(3)
    torch.rand(7)  # somebody else draws a random number in between
    assert all(map(torch.equal, epoch(2), epoch(2)))
    assert not all(map(torch.equal, epoch(2), epoch(3)))
    assert not all(map(torch.equal, epoch(2), epoch(2, seed=1)))


def test_every_batch_and_every_process_draws_its_own_augmentation_and_all_functions_apply_in_turn():
    drawn = []

    def draw(images, masks, generator):
        drawn.append(torch.rand(1, generator=generator).item())
        return images + 1, masks

    def double(images, masks, generator):
        return images * 2, masks

    for rank in (0, 1):
        run = started()
        run.rank, run.world_size = rank, 2
        for images, _ in Loader(numbered_set(8), 4, run, augment=[draw, double]):
            assert (images >= 2).all()
    assert len(set(drawn)) == 4


def test_an_epoch_of_few_steps_takes_a_part_of_the_images_another_one_every_epoch():
    loader = Loader(numbered_set(100), 5, started(), shuffle=True, steps=4)
    parts = []
    for epoch in range(30):
        loader.set_epoch(epoch)
        batches = numbers(loader)
        assert [len(batch) for batch in batches] == [5] * 4 and len(loader) == 4
        parts.append({i for batch in batches for i in batch})
        assert len(parts[-1]) == 20
    assert parts[0] != parts[1] and len(set.union(*parts)) > 95


def test_few_steps_without_shuffling_take_the_same_images_every_time_spread_over_the_set():
    loader = Loader(numbered_set(10), 2, started(), steps=2)
    assert numbers(loader) == numbers(loader) == [[0, 2], [5, 7]]


def test_more_steps_than_there_are_batches_take_every_image_once():
    assert numbers(Loader(numbered_set(5), 2, started(), steps=9)) == [[0, 1], [2, 3], [4]]


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which pages are in memory")
def test_of_a_set_on_disk_a_batch_is_read_and_not_what_lies_around_it(tmp_path):
    array = np.arange(1000, dtype=np.uint8)[:, None, None, None] * np.ones((64, 64, 3), dtype=np.uint8)  # 3 pages each
    np.save(tmp_path / "images.npy", array)
    images = torch.from_numpy(np.load(tmp_path / "images.npy", mmap_mode="c"))
    data = replace(numbered_set(1000, side=64), images=images.permute(0, 3, 1, 2))
    with open(tmp_path / "images.npy", "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if pages_in_memory(images) > 10:
        pytest.skip("this file system keeps all files in memory")
    batches = iter(Loader(data, 4, started(), shuffle=True))
    pictures, _ = next(batches)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(Loader(data, 4, started()).seed_of(0)))
    assert torch.equal((pictures[:, 0, 0, 0] * 255).round(), order[:4] % 256)
    assert 4 * 3 <= pages_in_memory(images) <= 4 * 5  # an image may begin and end inside a page


def pages_in_memory(mapped: torch.Tensor) -> int:
    start = mapped.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    length = mapped.data_ptr() + mapped.nbytes - start
    states = (ctypes.c_ubyte * -(-length // mmap.PAGESIZE))()
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(start), ctypes.c_size_t(length), states) == 0
    return sum(state & 1 for state in states)


def test_a_process_without_a_share_of_a_batch_gets_an_empty_one():
    run = started()
    run.rank, run.world_size = 1, 2
    augment = [random_hflip, random_rotated_crop, random_resized_crop]
    shares = [len(images) for images, _ in Loader(numbered_set(5), 2, run, augment=augment)]
    assert shares == [1, 1, 0]


def test_processes_share_every_batch_without_overlap():
    shares = []
    for rank in range(3):
        run = started()
        run.rank, run.world_size = rank, 3
        shares.append(numbers(Loader(numbered_set(10), 4, run, shuffle=True)))
    whole = numbers(Loader(numbered_set(10), 4, started(), shuffle=True))
    assert [[i for part in parts for i in part] for parts in zip(*shares, strict=True)] == whole


def test_a_batch_has_an_image_for_each_process():
    with pytest.raises(UserError, match="--batch-size 0 must be at least 1, one image for each process"):
        Loader(numbered_set(3), 0, started())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("fits", [True, False], ids=["data on the GPU", "data on the CPU"])
def test_on_a_gpu_batches_equal_those_on_the_cpu(fits, monkeypatch):
    monkeypatch.setattr(Loader, "_fits", lambda self, device: fits)
    data = numbered_set(40, side=32)
    ours = Loader(data, 16, started(device="cuda"), shuffle=True)
    for (images, masks), (cpu_images, cpu_masks) in zip(ours, Loader(data, 16, started(), shuffle=True), strict=True):
        assert images.is_cuda and torch.equal(images.cpu(), cpu_images) and torch.equal(masks.cpu(), cpu_masks)
