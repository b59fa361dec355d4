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
from common.models.layers import Normalize, conv_bn_relu, upsample
from common.muon import Muon

TEST = range(COUNTS["train"] + COUNTS["val"], sum(COUNTS.values()))


class Net(nn.Module):
    """A U-Net from 1/2 to 1/16 with skips that are added: its finest level would take most of the time."""

    def __init__(self, num_classes: int, width: int = 16):
        super().__init__()
        self.normalize = Normalize()
        widths = [3, width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList(
            nn.Sequential(conv_bn_relu(a, b, stride=2), conv_bn_relu(b, b)) for a, b in pairwise(widths)
        )
        self.narrow = nn.ModuleList(nn.Conv2d(b, a, 1, bias=False) for a, b in pairwise(widths[1:]))
        self.up = nn.ModuleList(conv_bn_relu(a, a) for a in widths[1:-1])
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (B, 3, H, W) in [0, 1], sides multiples of 16, to logits (B, num_classes, H, W)."""
        maps = [self.normalize(x)]
        for down in self.down:
            maps.append(down(maps[-1]))
        x = maps.pop()
        for narrow, up in zip(reversed(self.narrow), reversed(self.up), strict=True):
            x = up(maps.pop() + upsample(narrow(x)))
        return upsample(self.classifier(x))


def draw(index: int) -> list[np.ndarray]:
    """Return image (96, 96, 3) and mask (96, 96) of a scene, uint8."""
    return [np.asarray(picture) for picture in resized(*draw_scene(index), (96, 96))]


def main(
    scenes: int = 1000,  # training scenes that are drawn, of 3000
    epochs: int = 3,  # passes over them
    lr: float = 0.03,  # learning rate after 5 % of the steps; from there it falls to 0
    muon: bool = True,  # the optimizer; --no-muon is AdamW
    small: float = 0.7,  # share of the steps, from the first, whose images are shrunk to 64x64
    seed: int = 0,  # of the weights, the order and the choice of scenes
):
    torch.manual_seed(seed)
    with ThreadPoolExecutor() as pool:
        drawn = pool.map(draw, [*torch.randperm(COUNTS["train"])[:scenes].tolist(), *TEST])
    images, masks = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*drawn, strict=True))
    images, masks = images.permute(0, 3, 1, 2), masks[:, None]  # channels-last in memory

    model = Net(len(CLASSES)).to(memory_format=torch.channels_last)
    weights = model.parameters()
    optimizer = Muon(weights, lr, momentum=0.7) if muon else torch.optim.AdamW(weights, lr, betas=(0.9, 0.99))
    batches = torch.cat([torch.randperm(scenes) for _ in range(epochs)]).split(16)
    for step, batch in enumerate(batches):
        done = (step + 0.5) / len(batches)
        optimizer.param_groups[0]["lr"] = lr * min(done / 0.05, (1 - done) / 0.95)
        x, y = images[batch] / 255, masks[batch]
        if done < small:
            x, y = F.interpolate(x, 64, mode="bilinear"), F.interpolate(y, 64, mode="nearest-exact")
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
