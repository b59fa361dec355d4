"""The data loader: keeps images as uint8, on the GPU if they fit, and yields float batches in [0, 1]."""

import ctypes
import mmap
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from common.augment import per_sample
from common.datasets.segmentation_set import SegmentationSet
from common.run import Run
from common.system.errors import UserError, torch_errors

Batch = tuple[torch.Tensor, torch.Tensor]

LIBC = ctypes.CDLL(None) if hasattr(mmap, "MADV_WILLNEED") else None  # Windows has no madvise


class Loader:
    """Yields (images, masks) batches of a `SegmentationSet` on the run's device.

    Images are (B, 3, H, W) float in [0, 1], channels-last; masks are (B, H, W) int64. Every image comes exactly
    `copies` times per epoch, unless `steps` ends the epoch earlier. Batch sizes differ by at most one, so no batch is
    very small. With several processes, each takes its share of every batch.

    The whole set is kept in GPU memory as uint8 if it takes less than half of the free memory. Otherwise, each batch is
    copied. There are no worker processes: the images are already decoded, and the rest is a few tensor
    operations.

    Order and augmentation depend only on the seed, the epoch and the number of the batch. A resumed run therefore sees
    the same batches as an unbroken one.

    Args:
        data: the decoded set.
        batch_size: images per batch, summed over all processes.
        run: gives the device, the seed and the number of processes.
        shuffle: draw a new order every epoch.
        augment: functions (images, masks, generator) -> (images, masks), or torchvision's v2 transforms, applied in
            this order.
        copies: how often each image comes per epoch.
        steps: end an epoch after this many batches; 0 takes all images. With `shuffle`, every epoch leaves out
            different images. Without it, an epoch always takes the same images, spread evenly over the set.
    """

    def __init__(
        self,
        data: SegmentationSet,
        batch_size: int,
        run: Run,
        shuffle: bool = False,
        augment: Sequence[Callable] = (),
        copies: int = 1,
        steps: int = 0,
    ):
        if isinstance(run.device, str):
            raise UserError("the run has not started: write @experiment above main, as train.py does")
        if batch_size < run.world_size:
            raise UserError(f"--batch-size {batch_size} must be at least {run.world_size}, one image for each process")
        self.data, self.run = data, run
        self.shuffle, self.copies = shuffle, copies
        self.augment = [per_sample(f) if isinstance(f, nn.Module) else f for f in augment]
        self.num_images = min(len(data) * copies, steps * batch_size or len(data) * copies)  # in an epoch
        self.num_batches = -(-self.num_images // batch_size)
        self.batch_size, self.epoch = batch_size, 0
        # (N, H, W, 3) is the layout in memory, so an image is copied as one block.
        self._images, self._masks = data.images.permute(0, 2, 3, 1), data.masks
        self.on_device = run.device.type == "cuda" and self._fits(run.device)
        if self.on_device:
            with torch_errors(batch_size):
                self._images, self._masks = self._images.to(run.device), self._masks.to(run.device)

    def __len__(self) -> int:
        """Return the number of batches in an epoch, the same in every process."""
        return self.num_batches

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch, from 1. It decides order and augmentation."""
        self.epoch = epoch

    def batches(self) -> tuple[torch.Tensor, ...]:
        """Return the image indices (B,) int64 of each batch of the epoch, for all processes together."""
        order = torch.arange(len(self.data) * self.copies)
        if self.shuffle:
            order = torch.randperm(len(order), generator=torch.Generator().manual_seed(self.seed_of(self.epoch)))
        order = order[torch.arange(self.num_images) * len(order) // self.num_images]  # evenly spaced
        return (order % len(self.data)).to(self._images.device).tensor_split(self.num_batches)

    def describe(self, number: int, most: int = 8) -> str:
        """Return a phrase for errors: the batch `number`, from 0, and the names of up to `most` of its images."""
        names = [self.data.names[i] for i in self.batches()[number].tolist()]
        names = ", ".join(names[:most] + ["..."] * (len(names) > most))
        return f"in batch {number + 1} of {len(self)} of epoch {self.epoch} ({names})"

    def share(self, batch: torch.Tensor, rank: int) -> torch.Tensor:
        """Return the part of `batch` (image indices) for the process `rank`."""
        return batch.tensor_split(self.run.world_size)[rank]

    def order(self) -> list[int]:
        """Return the epoch's image indices in the order of `ConfusionMatrix.gathered`: process 0, process 1, ..."""
        batches = self.batches()
        shares = [self.share(batch, rank) for rank in range(self.run.world_size) for batch in batches]
        return torch.cat(shares).tolist()

    def __iter__(self) -> Iterator[Batch]:
        generator, pinned = torch.Generator(self.run.device), self.run.device.type == "cuda" and not self.on_device
        for number, batch in enumerate(self.batches(), start=1):
            share = self.share(batch, self.run.rank)
            if not self.on_device:
                read_ahead(self._images, share)
                read_ahead(self._masks, share)
            images, masks = self._images.index_select(0, share), self._masks.index_select(0, share)
            if pinned:  # without pinned memory, this process would wait for the copy and for all earlier work
                images, masks = images.pin_memory(), masks.pin_memory()
            # The permuted view has shape (B, 3, H, W) and torch's channels-last layout.
            images = images.to(self.run.device, non_blocking=pinned).permute(0, 3, 1, 2).float().div_(255)
            masks = masks.to(self.run.device, non_blocking=pinned).long()
            generator.manual_seed(self.seed_of(self.epoch, number))
            if len(images):  # the share of a small batch can be empty
                for function in self.augment:
                    images, masks = function(images, masks, generator)
            yield images, masks

    def seed_of(self, epoch: int, batch: int = 0) -> int:
        """Return the seed of an epoch's order (`batch` 0), or of a batch's augmentation in this process (from 1)."""
        entropy = [self.run.seed, epoch, batch, self.run.rank if batch else 0]
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)

    def _fits(self, device: torch.device) -> bool:
        """Return whether the set takes less than half of the GPU's free memory."""
        free, _ = torch.cuda.mem_get_info(device)
        return self._images.nbytes + self._masks.nbytes < free / 2


def read_ahead(data: torch.Tensor, indices: torch.Tensor) -> None:
    """Ask the system to read the images at `indices` from a memory-mapped file; `data` is (N, ...) uint8.

    All images of a batch are requested at once. Without the request, the system also reads the neighbours of each
    image, up to megabytes. If the set is larger than the memory, most of that reading is wasted.
    """
    size = data.stride(0)
    for index in indices.tolist() if LIBC else ():
        start = data.data_ptr() + index * size
        before = start % mmap.PAGESIZE
        LIBC.madvise(ctypes.c_void_p(start - before), ctypes.c_size_t(before + size), mmap.MADV_WILLNEED)
