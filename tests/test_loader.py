from functools import partial

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


@pytest.mark.parametrize("options", [{"shuffle": True}, {"augment": [random_hflip]}], ids=["order", "augmentation"])
def test_order_and_augmentation_depend_on_seed_and_epoch_alone(options):
    def epoch(number: int, seed: int = 0) -> torch.Tensor:
        loader = Loader(numbered_set(30), 8, started(seed=seed), **options)
        loader.set_epoch(number)
        return torch.cat([torch.cat([images[:, 0], masks], dim=1) for images, masks in loader])

    first = epoch(2)
    torch.rand(7)  # somebody else draws a random number in between
    assert torch.equal(first, epoch(2))
    assert not torch.equal(first, epoch(3)) and not torch.equal(first, epoch(2, seed=1))


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


def test_an_epoch_of_few_steps_takes_a_part_of_the_images_another_one_every_epoch_if_shuffled():
    loader = Loader(numbered_set(100), 5, started(), shuffle=True, steps=4)
    parts = []
    for epoch in range(30):
        loader.set_epoch(epoch)
        batches = numbers(loader)
        assert [len(batch) for batch in batches] == [5] * 4 and len(loader) == 4
        parts.append({i for batch in batches for i in batch})
        assert len(parts[-1]) == 20
    assert parts[0] != parts[1] and len(set.union(*parts)) > 95
    loader = Loader(numbered_set(10), 2, started(), steps=2)
    assert numbers(loader) == numbers(loader) == [[0, 2], [5, 7]]
    assert numbers(Loader(numbered_set(5), 2, started(), steps=9)) == [[0, 1], [2, 3], [4]]  # more than there are


def test_processes_share_every_batch_without_overlap_and_one_without_a_share_gets_an_empty_one():
    def shares(count: int, batch_size: int, **options) -> list[list[list[int]]]:
        """Return the numbers of the images in each batch of each of three processes."""
        runs = [started() for _ in range(3)]
        for rank, run in enumerate(runs):
            run.rank, run.world_size = rank, 3
        return [numbers(Loader(numbered_set(count), batch_size, run, **options)) for run in runs]

    whole = numbers(Loader(numbered_set(10), 4, started(), shuffle=True))
    parts = shares(10, 4, shuffle=True)
    assert [[i for part in batch for i in part] for batch in zip(*parts, strict=True)] == whole
    augment = [random_hflip, partial(random_rotated_crop, size=4), partial(random_resized_crop, size=4)]
    assert [[len(share) for share in part] for part in shares(7, 3, augment=augment)] == [
        [1, 1, 1],
        [1, 1, 1],
        [1, 0, 0],
    ]


def test_a_batch_has_an_image_for_each_process():
    with pytest.raises(UserError, match="--batch-size 0 must be at least 1, one image for each process"):
        Loader(numbered_set(3), 0, started())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("fits", [True, False], ids=["data on the GPU", "data on the CPU"])
def test_on_a_gpu_batches_equal_those_on_the_cpu(fits, monkeypatch):
    monkeypatch.setattr(Loader, "_fits", lambda self, device: fits)
    data = numbered_set(40, side=32)
    ours = Loader(data, 16, started(device="cuda"), shuffle=True)
    for (images, masks), (cpu_images, cpu_masks) in zip(ours, Loader(data, 16, started(), shuffle=True), strict=True):
        assert images.is_cuda and torch.equal(images.cpu(), cpu_images) and torch.equal(masks.cpu(), cpu_masks)
