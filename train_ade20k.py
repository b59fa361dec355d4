"""How good are an FCN on VGG-16 and a U-Net without normalisation on 150 classes, and does the optimizer matter?

Change    train.py, on ADE20K at 128 px, with mirrored images, batches of 5, and the networks of the ADE20K project:
          FCNVGG16 and ADEUNet (common/models/fcn_vgg16.py, ade_unet.py).
Result    test mIoU 0.072 on part of VOC 2012, not run on ADE20K itself; more in docs/other-sets.md
Run       python download.py ade20k && python train_ade20k.py                  # fetches VGG-16's weights
          python train_ade20k.py --model ade_unet --optimizer rmsprop
          python -m tools.compare train_ade20k.py model=fcn_vgg16,ade_unet optimizer=rmsprop,adamw,adam
          python train_ade20k.py --epochs 10 --steps 100 --val-steps 40 --lr 1e-3 --count-other    # as the project
          python train_ade20k.py --dataset shapes --no-pretrained --epochs 3   # needs no download
"""

from functools import partial
from typing import Literal

import torch

from common.augment import random_hflip
from common.cli import cli
from common.datasets import Size, load
from common.engine import fit, score
from common.loader import Loader
from common.losses import CrossEntropy
from common.models import build
from common.run import Run, experiment
from common.system.errors import UserError

MODELS = ("fcn_vgg16", "ade_unet")
OPTIMIZERS = {
    # Constants of Keras: its first steps are 3 times the learning rate, with torch's constants (0.99, 1e-8) 10 times.
    "rmsprop": partial(torch.optim.RMSprop, alpha=0.9, eps=1e-7),
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
}


@experiment
def main(
    dataset: str = "ade20k",  # voc2007, voc2012, pets, ade20k, drinks, shapes, or your own folder
    count_other: bool = False,  # make ADE20K's label 0 a class, "other", instead of void (ignored)
    image_size: Size = 128,  # height and width in pixels; 120x160 is height x width
    epochs: int = 20,  # number of epochs; an epoch is training and validation
    steps: int = 0,  # largest number of training batches per epoch; 0 takes all images
    val_steps: int = 0,  # largest number of validation batches per epoch; 0 takes all images
    batch_size: int = 5,  # images per step
    model: Literal[MODELS] = "fcn_vgg16",  # network to train
    pretrained: bool = True,  # start VGG-16 from ImageNet weights; the U-Net always starts from random ones
    encoder_weights: str = "",  # file or folder with ImageNet weights, instead of a download
    optimizer: Literal[tuple(OPTIMIZERS)] = "adam",  # update rule
    lr: float = 3e-4,  # learning rate
    run: Run = Run(),
):
    if count_other and dataset != "ade20k":
        raise UserError(f"--count-other is only for ade20k, not for {dataset}; leave it out")
    train_set, val_set, test_set = load("ade20k_other" if count_other else dataset, image_size, run)
    train_loader = Loader(train_set, batch_size, run, shuffle=True, augment=[random_hflip], steps=steps)
    val_loader = Loader(val_set, batch_size, run, steps=val_steps)
    test_loader = Loader(test_set, batch_size, run)

    network = build(model, train_set.num_classes, pretrained=pretrained, encoder_weights=encoder_weights)
    criterion = CrossEntropy()
    optim = OPTIMIZERS[optimizer](network.parameters(), lr=lr)

    fit(network, train_loader, val_loader, criterion, optim, epochs=epochs, run=run)
    return score(network, test_loader, criterion, run)


if __name__ == "__main__":
    cli(main)
