"""How well does a fully convolutional network on a deep ResNet v2 outline three drinks?

Change    train.py, on fully labelled photographs, with an FCN on ResNet-v2-56 (common/models/resnet_v2_fcn.py). Its
          decoder sees a pyramid of maps from stride 4 to 64. Adam with L2 on the convolutions of the backbone, cosine
          annealing, mirrored images.
Result    test mIoU 0.888 on part of the drinks, one seed; more in docs/other-sets.md
Run       python train_drinks.py                                       # python download.py drinks says how to get them
          python train_drinks.py --image-size 480x640 --schedule steps --no-flip --batch-size 1 --epochs 300    # as the
                                                                       # original project; this one wants a GPU
          python train_drinks.py --image-size 480x640 --schedule steps --no-flip --levels 4 --epochs 100    # the book
          python train_drinks.py --dataset shapes --image-size 96 --epochs 3    # needs no download
"""

from typing import Literal

import torch

from common.augment import random_hflip
from common.cli import cli
from common.datasets import Size, load
from common.engine import fit, score
from common.loader import Loader
from common.losses import CrossEntropy
from common.models import ResNetV2FCN
from common.run import Run, experiment


@experiment
def main(
    dataset: str = "drinks",  # voc2007, voc2012, pets, ade20k, drinks, shapes, or your own folder
    image_size: Size = (120, 160),  # height and width in pixels; 96 is 96x96
    epochs: int = 40,  # passes over the training images
    batch_size: int = 4,  # images per step
    lr: float = 1e-3,  # learning rate of Adam at the start
    schedule: Literal["cosine", "steps"] = "cosine",  # fall to 0 along a half cosine, or in steps as in `rate`
    flip: bool = True,  # mirror training images left to right, with probability 0.5
    levels: int = 5,  # number of maps in the pyramid; 5 means strides 4 to 64
    l2: float = 1e-4,  # weight of the L2 penalty on the backbone's kernels
    run: Run = Run(),
):
    train_set, val_set, test_set = load(dataset, image_size, run)
    train_loader = Loader(train_set, batch_size, run, shuffle=True, augment=[random_hflip] if flip else [])
    val_loader, test_loader = Loader(val_set, batch_size, run), Loader(test_set, batch_size, run)

    model = ResNetV2FCN(train_set.num_classes, levels=levels)
    criterion = CrossEntropy()
    kernels = [p for p in model.backbone.parameters() if p.ndim == 4]
    others = [p for name, p in model.named_parameters() if not name.startswith("backbone.") or p.ndim < 4]
    # Adam's weight decay d adds d * w to the gradient; the gradient of l2 * w**2 is 2 * l2 * w.
    optimizer = torch.optim.Adam([{"params": kernels, "weight_decay": 2 * l2}, {"params": others}], lr=lr, fused=True)
    if schedule == "cosine":
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * len(train_loader))
    else:
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step // len(train_loader)))

    fit(model, train_loader, val_loader, criterion, optimizer, scheduler, epochs=epochs, run=run)
    return score(model, test_loader, criterion, run)


def rate(epoch: int) -> float:
    """Return the book's learning rate in `epoch`, from 0, divided by its first: 1e-3, 5e-4, 1e-4, 5e-5 there."""
    return 1.0 if epoch < 40 else 0.5 if epoch < 60 else 0.1 if epoch < 80 else 0.05


if __name__ == "__main__":
    cli(main)
