"""The training step for benchmarks: the engine's own step, always on the same batch."""

from collections.abc import Callable, Iterator

import torch
from torch import nn

from common.datasets import SegmentationSet
from common.datasets.voc import CLASSES, PALETTE
from common.engine import train_one_epoch
from common.loader import Batch, Loader
from common.losses import CrossEntropy
from common.run import Run


def noise_set(count: int, image_size: int) -> SegmentationSet:
    """Return `count` square images of noise, with a random VOC class for each pixel."""
    images = torch.randint(0, 256, (count, image_size, image_size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    masks = torch.randint(0, len(CLASSES), (count, image_size, image_size), dtype=torch.uint8)
    return SegmentationSet(images, masks, [""] * count, CLASSES, PALETTE, "noise", "train")


class SameBatch(Loader):
    """A loader that repeats the first batch of another loader `steps` times, without any cost for loading."""

    def __init__(self, loader: Loader, steps: int):
        vars(self).update(vars(loader))
        self.num_batches, self.batch = steps, next(iter(loader))

    def __iter__(self) -> Iterator[Batch]:
        return iter([self.batch] * self.num_batches)


class HostLoader(Loader):
    """A loader that keeps its data in host memory, even if they fit on the GPU."""

    def _fits(self, device: torch.device) -> bool:
        return False


def training_steps(model: nn.Module, loader: Loader, run: Run, steps: int = 1) -> Callable[[], object]:
    """Return a function that takes `steps` training steps of `model` on the first batch of `loader`.

    It calls `common.engine.train_one_epoch` with AdamW and cross-entropy, including the metrics.
    """
    model.to(run.device, memory_format=torch.channels_last)
    network = torch.compile(model) if run.compile else model
    optimizer, criterion = torch.optim.AdamW(model.parameters(), fused=True), CrossEntropy().to(run.device)
    same = SameBatch(loader, steps)
    return lambda: train_one_epoch(network, same, criterion, optimizer, None, run)
