"""A small experiment for test_distributed.py to start in one process or in several; notes what each of them saw."""

import atexit
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import torch.distributed as dist
from torch import nn

from common.cli import cli
from common.datasets import VOID, load
from common.engine import evaluate, fit, score
from common.loader import Loader
from common.losses import CrossEntropy, class_weights
from common.models import FCNVGG16, MODELS
from common.run import Run, experiment

seen: dict[str, list[float]] = {}  # by split and epoch, the mean of each image, by which it is known
doomed = os.environ.get("KILL", "") if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0" else ""

atexit.register(lambda: os._exit(3) if dist.is_initialized() else None)  # the last to be called: nobody left the group


class Plain(nn.Module):
    """Two convolutions; neither batch normalisation nor dropout, so that shares of a batch add up to the batch."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.arguments = {"num_classes": num_classes}
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, num_classes, 3, padding=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


MODELS["plain"] = Plain


class Noting(Loader):
    """A loader that notes its images in `seen`, and kills the process before a batch that KILL names."""

    def __iter__(self):
        note = seen.setdefault(f"{self.data.split} {self.epoch}", [])
        for number, (images, masks) in enumerate(super().__iter__(), start=1):
            if self.shuffle and doomed == f"{self.run.rank} {self.epoch} {number}":
                os.kill(os.getpid(), signal.SIGKILL)
            note += images.mean((1, 2, 3)).tolist()
            yield images, masks


@experiment
def main(
    network: str = "plain",  # or fcn_vgg16
    epochs: int = 2,  # passes over the training images
    batch_size: int = 4,  # images per step
    copies: int = 1,  # of each image in an epoch
    lr: float = 0.1,  # of SGD: the steps of Adam have the same length however small a gradient is
    run: Run = Run(),
):
    sets = load("voc2007", 32, run)
    for part in sets:
        part.masks[::2] = VOID  # every other image has no say, so the shares of a batch weigh differently
    train_loader = Noting(sets[0], batch_size, run, shuffle=True, copies=copies)
    val_loader, test_loader = (Noting(part, batch_size, run) for part in sets[1:])

    model = Plain(21) if network == "plain" else FCNVGG16(21, pretrained=False)
    criterion = CrossEntropy(class_weights(sets[0]))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    loss, matrix = evaluate(model, test_loader, criterion, run)
    noted = {"counts": matrix.counts.tolist(), "images": matrix.images.sum(0).tolist(), "loss": loss}
    seen.clear()
    fit(model, train_loader, val_loader, criterion, optimizer, epochs=epochs, run=run)
    score(model, test_loader, criterion, run)
    noted |= {"seen": seen, "all": {part.split: part.images.float().div(255).mean((1, 2, 3)).tolist() for part in sets}}
    Path(f"noted-{run.rank}.json").write_text(json.dumps(noted))


if __name__ == "__main__":
    cli(main)
