import torch

from common.augment import random_hflip


def test_a_flip_moves_image_and_mask_together_and_some_samples_only():
    masks = torch.randint(0, 9, (32, 4, 6))
    images = masks[:, None].expand(-1, 3, -1, -1).float()
    flipped_images, flipped_masks = random_hflip(images, masks, torch.Generator().manual_seed(0))
    assert torch.equal(flipped_images[:, 0].long(), flipped_masks)
    changed = (flipped_masks != masks).flatten(1).any(1)
    assert torch.equal(flipped_masks[changed], masks[changed].flip(2))
    assert 0 < changed.sum() < 32
