import numpy as np
from conftest import FEW, started

from common.datasets import VOID, load
from common.datasets.shapes import CLASSES, SIDE, draw_scene, shapes


def test_scenes_hold_every_class_and_void_and_mostly_background():
    masks = np.stack([draw_scene(index)[1] for index in range(30)])
    shares = np.bincount(masks.ravel(), minlength=256) / masks.size
    assert (shares[1 : len(CLASSES)] > 0.01).all()
    assert 0.5 < shares[0] < 0.85
    assert 0.005 < shares[VOID] < 0.06
    assert not shares[len(CLASSES) : VOID].any()


def test_void_outlines_objects():
    _, mask = draw_scene(3)
    rows, columns = np.nonzero(mask[:, 1:] != mask[:, :-1])
    sides = {tuple(sorted(pair)) for pair in zip(mask[rows, columns], mask[rows, columns + 1], strict=True)}
    assert all(VOID in pair for pair in sides)  # no class touches another, or the background, without void between


def test_no_scene_is_in_two_splits():
    indices = [sample[1] for split in shapes(None).splits.values() for sample in split]
    assert len(indices) == len(set(indices)) == 3800


def test_each_split_holds_its_own_scenes_in_order(few_shapes):
    first = 0
    for data, (split, count) in zip(load("shapes", SIDE, started()), FEW.items(), strict=True):
        assert (data.split, len(data)) == (split, count)
        for index in range(count):
            image, mask = draw_scene(first + index)
            assert np.array_equal(data.images[index].permute(1, 2, 0), image)
            assert np.array_equal(data.masks[index], mask)
        first += count
