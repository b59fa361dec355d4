"""Find lines in the training loop that wait for the GPU. There should be none, because waiting leaves the GPU idle."""

import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torchvision.transforms import v2

from benchmarks.step import HostLoader, noise_set
from common import augment
from common.datasets.voc import CLASSES
from common.engine import evaluate, train_one_epoch
from common.loader import Batch, Loader
from common.losses import CrossEntropy
from common.models import BasicFCN
from common.run import Run

REPOSITORY = Path(__file__).parents[1]


class Strict(Loader):
    """A loader that makes torch raise an error when code waits for the GPU between the first and the last batch."""

    def __init__(self, loader: Loader):
        vars(self).update(vars(loader))

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            torch.cuda.set_sync_debug_mode("error")
            yield batch
        torch.cuda.set_sync_debug_mode("default")


def waits(image_size: int, batch_size: int, run: Run) -> Iterator[tuple[str, str]]:
    """Yield the place where training waits, for each augmentation, for per_sample, and for data in host memory."""
    data, criterion = noise_set(3 * batch_size, image_size), CrossEntropy().to(run.device)
    model = BasicFCN(len(CLASSES)).to(run.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    loaders = {"training": Loader(data, batch_size, run), "data in host memory": HostLoader(data, batch_size, run)}
    for function in (f for name, f in vars(augment).items() if name.startswith("random_")):
        loaders[function.__name__] = Loader(data, batch_size, run, augment=[function])
    loaders["per_sample"] = Loader(data, batch_size, run, augment=[v2.RandomHorizontalFlip()])
    for name, loader in loaders.items():
        yield name, first_wait(partial(train_one_epoch, model, Strict(loader), criterion, optimizer, None, run))
    yield "validation", first_wait(partial(evaluate, model, Strict(loaders["training"]), criterion, run))


def first_wait(work: Callable[[], object]) -> str:
    """Return the first line of common/ that waits for the GPU in `work`, which uses a `Strict` loader."""
    try:
        work()
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        frames = [(Path(frame.filename), frame) for frame in traceback.extract_tb(error.__traceback__)]
        path, frame = [pair for pair in frames if pair[0].is_relative_to(REPOSITORY / "common")][-1]
        return f"waits at {path.relative_to(REPOSITORY).as_posix()}:{frame.lineno}: {frame.line}"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "waits nowhere"
