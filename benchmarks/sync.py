"""Where does the loop over the batches wait for the GPU? Should be nowhere: a GPU that is waited for runs dry."""

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
    """A loader that makes an error of whatever waits for the GPU between its first batch and its last."""

    def __init__(self, loader: Loader):
        vars(self).update(vars(loader))

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            torch.cuda.set_sync_debug_mode("error")
            yield batch
        torch.cuda.set_sync_debug_mode("default")


def waits(image_size: int, batch_size: int, run: Run) -> Iterator[tuple[str, str]]:
    """Yield where training waits with each augmentation, per_sample included, and with data in host memory."""
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
    """Return the line of common/ at which `work`, with a `Strict` loader, first waits for the GPU."""
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
