import math
from functools import partial

import pytest
import torch

from common.augment import GREY, random_crop, random_hflip, random_resized_crop, random_rotate
from common.datasets.segmentation_set import VOID

HEIGHT, WIDTH, BATCH = 40, 64, 16
ALL = [random_hflip, random_rotate, random_crop, partial(random_resized_crop, size=(24, 30))]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coordinates(batch: int = BATCH, height: int = HEIGHT, width: int = WIDTH):
    """Images whose first two channels hold each pixel's x and y (over 100), with the x and the y as masks."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([x / 100, y / 100, torch.zeros(height, width)])
    images = image.expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    return images, x.expand(batch, -1, -1), y.expand(batch, -1, -1)


def steps(images: torch.Tensor) -> torch.Tensor:
    """How far, in pixels of the old image, one gets by a step right and a step down at the new one's centre: (B, 2, 2).

    Entry [b, 0] is (dx, dy) of a step right, [b, 1] of a step down.
    """
    place, (h, w) = 100 * images[:, :2], (images.shape[2] // 2, images.shape[3] // 2)
    right, down = place[:, :, h, w + 1] - place[:, :, h, w], place[:, :, h + 1, w] - place[:, :, h, w]
    return torch.stack([right, down], dim=1)


@pytest.mark.parametrize("function", ALL)
def test_images_and_masks_are_taken_from_the_same_place(function):
    images, column, row = coordinates()
    new_images, new_column = function(images, column, seeded(3))
    _, new_row = function(images, row, seeded(3))
    # Where bilinear mixes in nothing from beyond the edge.
    inside = (new_column > 0) & (new_column < WIDTH - 1) & (new_row > 0) & (new_row < HEIGHT - 1)
    assert inside.float().mean() > 0.7
    for channel, new_mask in enumerate((new_column, new_row)):
        apart = (100 * new_images[:, channel] - new_mask)[inside].abs()
        assert apart.max() <= 0.501  # nearest is half a pixel off at most
        assert apart.mean() < 0.26  # and a quarter on average


@pytest.mark.parametrize("function", ALL)
def test_a_seed_decides_the_batch_and_samples_differ(function):
    images, mask, _ = coordinates()
    first, again, other = (function(images, mask, seeded(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert len({sample.sum().item() for sample in first[0][:, 0] * torch.arange(first[0].shape[3])}) > 1


@pytest.mark.parametrize("function", ALL)
def test_the_types_and_the_layout_stay(function):
    images, mask, _ = coordinates()
    new_images, new_mask = function(images, mask, seeded())
    assert new_images.is_contiguous(memory_format=torch.channels_last)
    assert (new_images.dtype, new_mask.dtype) == (torch.float32, torch.int64)
    assert new_mask.shape == (BATCH, *new_images.shape[2:])


@pytest.mark.parametrize("function", ALL)
def test_what_was_void_stays_void_and_no_class_is_invented(function):
    masks = torch.full((BATCH, HEIGHT, WIDTH), 7)
    masks[:, :, WIDTH // 2 :] = 3
    masks[:, 15:25] = VOID
    _, masks = function(torch.zeros(BATCH, 3, HEIGHT, WIDTH), masks, seeded())
    assert set(masks.unique().tolist()) == {3, 7, VOID}


def test_about_half_of_the_samples_are_mirrored():
    images, mask, _ = coordinates(batch=200)
    new_images, new_mask = random_hflip(images, mask, seeded())
    mirrored = new_mask[:, 0, 0] == WIDTH - 1
    assert 70 < mirrored.sum() < 130
    assert torch.equal(new_mask[mirrored], mask[mirrored].flip(2))
    assert torch.equal(new_images[mirrored], images[mirrored].flip(3))
    assert torch.equal(new_images[~mirrored], images[~mirrored])


def test_a_rotation_turns_by_up_to_15_degrees_both_ways_and_stretches_nothing():
    images, mask, _ = coordinates(batch=200)
    right, down = steps(random_rotate(images, mask, seeded())[0]).unbind(1)
    assert torch.allclose(right.norm(dim=1), torch.ones(200), atol=1e-3)
    assert torch.allclose(down.norm(dim=1), torch.ones(200), atol=1e-3)
    assert (right * down).sum(1).abs().max() < 1e-3
    angle = torch.atan2(right[:, 1], right[:, 0]).rad2deg()
    assert -15.01 < angle.min() < -13 and 13 < angle.max() < 15.01
    assert angle.mean().abs() < 2


def test_a_rotation_leaves_the_centre_where_it_is():
    images, mask, _ = coordinates(height=41, width=65)
    center = 100 * random_rotate(images, mask, seeded())[0][:, :2, 20, 32]
    assert torch.allclose(center, torch.tensor([32.0, 20.0]).expand(BATCH, 2), atol=1e-3)


def test_beyond_the_edge_of_a_rotated_image_is_grey_and_void():
    images, masks = torch.ones(BATCH, 3, HEIGHT, WIDTH), torch.ones(BATCH, HEIGHT, WIDTH, dtype=torch.int64)
    images, masks = random_rotate(images, masks, seeded())
    outside = masks == VOID
    assert 0.02 < outside.float().mean() < 0.3
    # A place less than a pixel outside still has a share of the edge in it.
    assert (images[:, 0][outside] < 0.75).all()
    assert ((images[:, 0][outside] - GREY).abs() < 1e-6).float().mean() > 0.5
    assert (images[:, 0][~outside] > 0.55).all()


def test_a_rotation_by_nothing_changes_nothing():
    images, mask, _ = coordinates()
    new_images, new_mask = random_rotate(images, mask, seeded(), degrees=0)
    assert torch.equal(new_mask, mask)
    assert torch.allclose(new_images, images, atol=1e-5)


def test_a_crop_has_60_to_100_percent_of_the_side_and_lies_inside():
    images, mask, _ = coordinates(batch=200)
    new_images, new_mask = random_crop(images, mask, seeded())
    (dx, zero), (also_zero, dy) = steps(new_images).permute(1, 2, 0)
    assert torch.allclose(dx, dy, atol=1e-3) and zero.abs().max() < 1e-4 and also_zero.abs().max() < 1e-4
    assert 0.599 < dx.min() < 0.62 and 0.98 < dx.max() < 1.001
    assert (new_mask != VOID).all()
    assert new_mask[:, 0, 0].float().std() > 2  # not always from the same corner
    assert (new_mask[:, 0, 0] < 2).any() and (new_mask[:, 0, -1] > WIDTH - 3).any()


def test_resized_crops_are_drawn_as_torchvision_draws_them():
    from torchvision.transforms import RandomResizedCrop

    count, size = 2000, 24
    images, mask, _ = coordinates(batch=count, height=100, width=60)
    new_images, new_mask = random_resized_crop(images, mask, seeded(), size=size)
    (wide, _), (_, tall) = size * steps(new_images).permute(1, 2, 0)
    torch.manual_seed(0)
    theirs = [RandomResizedCrop.get_params(images[0], (0.25, 1.0), (3 / 4, 4 / 3)) for _ in range(count)]
    _, _, their_tall, their_wide = torch.tensor(theirs).T.float()
    assert new_images.shape == (count, 3, size, size) and (new_mask != VOID).all()
    for ours, reference in (
        (wide * tall / 6000, their_wide * their_tall / 6000),
        ((wide / tall).log(), (their_wide / their_tall).log()),
    ):
        assert abs(ours.mean() - reference.mean()) < 0.015
        assert abs(ours.std() - reference.std()) < 0.015
    assert (wide * tall / 6000).min() > 0.249 and wide.max() < 60.1 and tall.max() < 100.1
    assert (wide / tall).log().abs().max() < math.log(4 / 3) + 1e-3


def test_a_window_that_fits_nowhere_is_made_smaller_and_keeps_its_shape():
    images, mask, _ = coordinates(height=200, width=20)
    new_images, new_mask = random_resized_crop(images, mask, seeded(), size=16, scale=(1.0, 1.0))
    assert (new_mask != VOID).all()
    (wide, _), (_, tall) = 16 * steps(new_images).permute(1, 2, 0)
    assert torch.allclose(wide, torch.full((BATCH,), 20.0), atol=0.01) and (tall > 14.9).all() and (tall < 26.7).all()
