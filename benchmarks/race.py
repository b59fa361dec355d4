"""How soon does a network know the generated scenes? From the start of Python to a test mIoU of 0.75 in one script.

Run       python benchmarks/race.py --seed 1          # prints the test mIoU
          python benchmarks/races.py                  # how long it takes, and what each idea in it brings

Only those scenes of `--dataset shapes` are drawn that are needed, the 500 of the test among them. No cache, no files.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from common.cli import cli
from common.datasets.cache import resized
from common.datasets.shapes import CLASSES, COUNTS, draw_scene
from common.labels import VOID
from common.metrics import MIOU, ConfusionMatrix
from common.muon import Muon

TEST = range(COUNTS["train"] + COUNTS["val"], sum(COUNTS.values()))


class Net(nn.Module):
    """A U-Net from 1/2 to 1/16 that adds where U-Net appends: without the finest level, where most time would go."""

    def __init__(self, num_classes: int, width: int = 16):
        super().__init__()
        widths = [3, width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList(nn.Sequential(block(a, b, stride=2), block(b, b)) for a, b in pairwise(widths))
        self.side = nn.ModuleList(nn.Conv2d(b, a, 1, bias=False) for a, b in pairwise(widths[1:]))
        self.up = nn.ModuleList(block(a, a) for a in widths[1:-1])
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (B, 3, H, W) in [0, 1], sides multiples of 16, to logits (B, num_classes, H, W)."""
        maps = [4 * (x - 0.45)]
        for down in self.down:
            maps.append(down(maps[-1]))
        x = maps.pop()
        for side, up in zip(reversed(self.side), reversed(self.up), strict=True):
            x = up(maps.pop() + F.interpolate(side(x), scale_factor=2, mode="bilinear"))
        return F.interpolate(self.classifier(x), scale_factor=2, mode="bilinear")


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def main(
    scenes: int = 1000,  # training scenes that are drawn, of 3000
    epochs: int = 3,  # passes over them
    batch_size: int = 16,  # images per step
    lr: float = 0.03,  # learning rate at its highest
    muon: bool = True,  # the optimizer; --no-muon is AdamW
    small: float = 0.7,  # part of the steps, from the first, that see images of 64x64
    turned: bool = True,  # turn every batch by 90 degrees more than the one before
    seed: int = 0,  # of the weights, the order and the choice of scenes
):
    torch.manual_seed(seed)
    chosen = torch.randperm(COUNTS["train"])[:scenes].tolist()
    with ThreadPoolExecutor() as pool:
        drawn = pool.map(lambda index: map(np.asarray, resized(*draw_scene(index), (96, 96))), [*chosen, *TEST])
    images, masks = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*drawn, strict=True))
    images, masks = images.permute(0, 3, 1, 2), masks[:, None]  # channels-last in memory

    model = Net(len(CLASSES)).to(memory_format=torch.channels_last)
    optimizer = Muon(model.parameters(), lr, momentum=0.7) if muon else torch.optim.AdamW(model.parameters(), lr)
    batches = torch.cat([torch.randperm(scenes) for _ in range(epochs)]).split(batch_size)
    for step, batch in enumerate(batches):
        done = step / len(batches)
        optimizer.param_groups[0]["lr"] = lr * min(20 * done, 1 - done)  # up for a while, then down to 0
        x, y = images[batch] / 255, masks[batch]
        if done < small:
            x, y = F.interpolate(x, 64, mode="bilinear"), F.interpolate(y, 64)
        x, y = (t.rot90(step if turned else 0, dims=(2, 3)) for t in (x, y))
        loss = F.cross_entropy(model(x), y[:, 0].long(), ignore_index=VOID)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    model.eval()
    with torch.no_grad():
        predictions = torch.cat([model(x / 255).argmax(1) for x in images[scenes:].split(50)])
    matrix = ConfusionMatrix(len(CLASSES))
    matrix.update(predictions, masks[scenes:, 0].long())
    print(matrix.scores()[MIOU])


if __name__ == "__main__":
    cli(main)
