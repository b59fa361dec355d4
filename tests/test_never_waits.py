"""The loops must not ask a GPU for a value, since that waits for it. Device "meta" has no values to ask for."""

import contextlib
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from conftest import started

from common.augment import random_color, random_hflip, random_resized_crop, random_rotated_crop, random_scale_crop
from common.engine import evaluate, train_one_epoch
from common.losses import CrossEntropy, Dice, Focal, Sum
from common.models import ASPPUNet, DeepLabV3, UNet
from common.muon import Muon

SIZE = (64, 96)
CROPS = [partial(crop, size=SIZE) for crop in (random_rotated_crop, random_resized_crop, random_scale_crop)]
NETWORKS = {
    "unet": lambda: UNet(20, width=4),
    "aspp_unet": lambda: ASPPUNet("resnet18", 20, pretrained=False),
    "deeplabv3": lambda: DeepLabV3("mobilenet_v2", 20, pretrained=False),
}


class MetaGenerator(torch.Generator):
    device = torch.device("meta")


class MetaBatches:
    """Stands for a Loader whose batches are on device meta; `done` once the loop has taken all of them."""

    def __init__(self):
        self.data, self.epoch, self.done = SimpleNamespace(num_classes=20), 1, False

    def seed_of(self, epoch: int) -> int:
        return epoch

    def __iter__(self):
        for _ in range(3):
            images, masks = torch.rand(2, 3, 80, 120, device="meta"), torch.zeros(2, 80, 120, device="meta").long()
            for function in [*CROPS, random_hflip, random_color]:
                images, masks = function(images, masks, MetaGenerator())
            yield images, masks
        self.done = True


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, Muon])
def test_no_batch_asks_for_a_value(network, optimizer, monkeypatch):
    run = started()
    run.device = torch.device("meta")
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # this device has none
    model = NETWORKS[network]().to("meta")
    criterion = Sum(CrossEntropy(torch.ones(20)), Dice(), Focal()).to("meta")
    step = optimizer(model.parameters())
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(step, T_max=3)
    for loop in (partial(train_one_epoch, optimizer=step, scheduler=scheduler, clip_norm=1), evaluate):
        batches = MetaBatches()
        with pytest.raises((NotImplementedError, RuntimeError), match="meta"):  # only the end of an epoch asks
            loop(model, batches, criterion, run=run)
        assert batches.done
