import math
from functools import partial

import pytest
import torch

from common.augment import (
    GREY,
    per_sample,
    random_color,
    random_hflip,
    random_resized_crop,
    random_rotated_crop,
    random_scale_crop,
)
from common.labels import VOID

HEIGHT, WIDTH, BATCH = 40, 64, 16
ALL = [random_hflip, partial(random_rotated_crop, size=(48, 64)), partial(random_resized_crop, size=(24, 30))]
ALL.append(partial(random_scale_crop, size=(32, 44), scale=(0.9, 2)))


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
def test_a_seed_decides_the_batch_samples_differ_and_types_and_layout_stay(function):
    images, mask, _ = coordinates()
    first, again, other = (function(images, mask, seeded(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert len({sample.sum().item() for sample in first[0][:, 0] * torch.arange(first[0].shape[3])}) > 1
    assert first[0].is_contiguous(memory_format=torch.channels_last)
    assert (first[0].dtype, first[1].dtype) == (torch.float32, torch.int64)
    assert first[1].shape == (BATCH, *first[0].shape[2:])


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
    images, mask = random_rotated_crop(images, mask, seeded(), size=(HEIGHT, WIDTH), smallest=1)
    right, down = steps(images).unbind(1)
    assert torch.allclose(right.norm(dim=1), torch.ones(200), atol=1e-3)
    assert torch.allclose(down.norm(dim=1), torch.ones(200), atol=1e-3)
    assert (right * down).sum(1).abs().max() < 1e-3
    angle = torch.atan2(right[:, 1], right[:, 0]).rad2deg()
    assert -15.01 < angle.min() < -13 and 13 < angle.max() < 15.01
    assert angle.mean().abs() < 2


@pytest.mark.parametrize("function", ALL)
def test_beyond_the_edge_is_grey_and_void_and_no_pixel_that_is_trained_on_has_grey_in_it(function):
    images, masks = torch.ones(200, 3, HEIGHT, WIDTH), torch.ones(200, HEIGHT, WIDTH, dtype=torch.int64)
    images, masks = function(images, masks, seeded())
    void = (masks == VOID)[:, None].expand_as(images)
    assert void.float().mean() < 0.2 and (images[~void] - 1).abs().max() < 1e-3
    if function is ALL[1]:  # which alone turns
        assert void.float().mean() > 0.02 and ((images[void] - GREY).abs() < 1e-6).float().mean() > 0.4


def test_a_turned_window_lies_where_turning_and_cropping_in_two_steps_would_take_it():
    images, mask, _ = coordinates(batch=50)
    size = (HEIGHT // 2, WIDTH // 2)
    both = 100 * random_rotated_crop(images, mask, seeded(), size=size)[0][:, :2]
    angle, side, x, y = (torch.rand(n, generator=g) for g in [seeded()] for n in (50, 50, 50, 50))
    angle, side = math.radians(15) * (2 * angle - 1), 0.6 + 0.4 * side
    center = torch.stack([(1 - side) * (2 * x - 1) * WIDTH / 2, (1 - side) * (2 * y - 1) * HEIGHT / 2])  # in pixels
    for row, column in ((10, 16), (4, 25)):
        window = torch.tensor([(column + 0.5) * 2 - WIDTH / 2, (row + 0.5) * 2 - HEIGHT / 2])
        cropped_x, cropped_y = side * window[:, None] + center
        old_x = angle.cos() * cropped_x - angle.sin() * cropped_y + WIDTH / 2 - 0.5
        old_y = angle.sin() * cropped_x + angle.cos() * cropped_y + HEIGHT / 2 - 0.5
        inside = (old_x > 0) & (old_x < WIDTH - 1) & (old_y > 0) & (old_y < HEIGHT - 1)
        assert inside.sum() > 40
        found = both[:, :, row, column]
        assert torch.allclose(found[inside], torch.stack([old_x, old_y], 1)[inside], atol=1e-2)


@pytest.mark.parametrize("size", [24, (24, 48)])
def test_resized_crops_are_drawn_as_torchvision_draws_them(size):
    """From square images; from others, with shapes relative to theirs."""
    from torchvision.transforms import RandomResizedCrop

    count, side = 2000, 40
    height, width = (size, size) if isinstance(size, int) else size
    images, mask, _ = coordinates(batch=count, height=side, width=side * width // height)
    new_images, new_mask = random_resized_crop(images, mask, seeded(), size=size)
    (wide, _), (_, tall) = steps(new_images).permute(1, 2, 0)
    wide, tall = wide * width / mask.shape[2], tall * height / mask.shape[1]  # as parts of the image's
    torch.manual_seed(0)
    theirs = torch.zeros(1, side, side)
    theirs = [RandomResizedCrop.get_params(theirs, (0.25, 1.0), (3 / 4, 4 / 3)) for _ in range(count)]
    _, _, their_tall, their_wide = torch.tensor(theirs).T / side
    assert new_images.shape == (count, 3, height, width) and (new_mask != VOID).float().mean() > 0.95
    for ours, reference in (
        (wide * tall, their_wide * their_tall),
        ((wide / tall).log(), (their_wide / their_tall).log()),
    ):
        assert abs(ours.mean() - reference.mean()) < 0.015
        assert abs(ours.std() - reference.std()) < 0.015
    assert (wide * tall).min() > 0.249 and wide.max() < 1.001 and tall.max() < 1.001
    assert (wide / tall).log().abs().max() < math.log(4 / 3) + 1e-3


def test_crops_for_a_result_that_is_not_square_stretch_objects_no_more_than_validation_does():
    """Stored at 53x80, shown at 24x36 or at 32x32: on average objects keep the shape that validation shows."""
    images, mask, _ = coordinates(batch=1000, height=53, width=80)
    for height, width in ((24, 36), (32, 32)):
        new_images, _ = random_resized_crop(images, mask, seeded(), size=(height, width))
        (across, _), (_, down) = steps(new_images).permute(1, 2, 0)
        stretch = (across * width / 80) / (down * height / 53)
        assert abs(stretch.log().mean()) < 0.02


def test_colours_are_changed_as_torchvision_does_and_masks_are_not():
    from torchvision.transforms.v2 import functional as theirs

    images, masks = torch.rand(4, 3, 6, 5), torch.zeros(4, 6, 5, dtype=torch.int64)
    for name in ("brightness", "contrast", "saturation"):
        settings = {"brightness": 0, "contrast": 0, "saturation": 0} | {name: 0.5}
        ours, same = random_color(images, masks, seeded(1), **settings)
        numbers = seeded(1)
        factors = {key: 1 + (2 * torch.rand(4, generator=numbers) - 1) * most for key, most in settings.items()}
        for image, mine, factor in zip(images, ours, factors[name].tolist(), strict=True):
            torch.testing.assert_close(mine, getattr(theirs, f"adjust_{name}")(image, factor), atol=2e-4, rtol=0)
        assert same is masks and len(factors[name].unique()) == 4


def test_a_transform_of_torchvision_takes_each_sample_with_its_mask_and_goes_by_the_generator():
    from torchvision.transforms import v2

    images, column, _ = coordinates()
    crop = per_sample(v2.RandomResizedCrop((20, 30), interpolation=v2.InterpolationMode.NEAREST))
    assert crop.__name__ == "RandomResizedCrop"
    before = torch.get_rng_state()
    new_images, new_column = crop(images, column, seeded(1))
    assert torch.equal((100 * new_images[:, 0]).round().long(), new_column)
    assert len({tuple(sample.unique().tolist()) for sample in new_column}) > 8  # drawn anew for each sample
    assert torch.equal(crop(images, column, seeded(1))[0], new_images) and torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(crop(images, column, seeded(2))[0], new_images)
    assert type(new_images) is type(new_column) is torch.Tensor
    colors, same = per_sample(v2.ColorJitter(0.5))(images, column, seeded(1))
    assert torch.equal(same, column) and not torch.equal(colors, images)


def test_a_sample_is_enlarged_or_shrunk_within_bounds_and_grey_and_void_are_beside_it():
    images, masks = torch.ones(500, 3, HEIGHT, WIDTH), torch.zeros(500, HEIGHT, WIDTH, dtype=torch.int64)
    images, masks = random_scale_crop(images, masks, seeded(), size=(HEIGHT, WIDTH), scale=(0.5, 1), ratio=(1, 1))
    known = (masks == 0).float().mean((1, 2))
    assert 0.22 < known.min() < 0.26 and 0.85 < known.max() <= 1  # without the outermost half pixel
    assert ((known > 0.48).float().mean() - 0.5).abs() < 0.07  # half of them are larger than 0.5**0.5
    assert images[:, 0][masks == VOID].median() == pytest.approx(GREY) and images[:, 0][masks == 0].mean() > 0.98

    images, _, _ = coordinates(500)
    side = steps(random_scale_crop(images, images[:, 0].long(), seeded(), (HEIGHT, WIDTH), scale=(1, 2))[0])
    side = side[:, [0, 1], [0, 1]]  # of the window, as a part of the image's
    shape = side[:, 0] / side[:, 1]
    assert 0.74 < shape.min() < 0.78 and 1.29 < shape.max() < 1.34
    assert 0.49 < side.prod(1).sqrt().min() < 0.53 and 0.97 < side.prod(1).sqrt().max() < 1.01
