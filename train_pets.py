"""Which decoder is best with a light encoder, and how much does fine-tuning add?

Change    train_voc2012.py, with a choice of six decoders, on Oxford-IIIT Pet, in two stages. The first trains only the
          decoder, the second also the encoder, at lower learning rates. If the validation mIoU stops improving, the
          rates fall; later, the stage ends.
Result    test mIoU 0.302 (pspnet) on part of VOC 2012, not run on the pets; more in docs/experiments.md
Run       python train_pets.py --model pspnet --encoder mobilenet_v2
          python -m tools.compare train_pets.py model=fcn8s,pspnet,deeplabv3 encoder=mobilenet_v1,mobilenet_v2
"""

from functools import partial
from typing import Literal

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from common.augment import random_hflip, random_resized_crop
from common.cli import cli
from common.datasets import Size, load
from common.engine import fit, score
from common.loader import Loader
from common.losses import CrossEntropy
from common.models import Encoder, build
from common.models.deeplabv3 import dilations_for
from common.models.encoders import freeze
from common.run import Run, experiment

DECODERS = ("encoder_unet", "fcn8s", "segnet", "pspnet", "deeplabv3", "deeplabv3plus")


@experiment
def main(
    dataset: str = "pets",  # voc2007, voc2012, pets, ade20k, drinks, shapes, or your own folder
    model: Literal[DECODERS] = "encoder_unet",  # network, named after its decoder
    encoder: Encoder = "mobilenet_v2",  # ImageNet network, used without its classifier
    pretrained: bool = True,  # start from ImageNet weights; --no-pretrained starts from random ones
    encoder_weights: str = "",  # file or folder with ImageNet weights, instead of a download
    image_size: Size = 224,  # height and width in pixels; 120x160 is height x width
    stored_scale: float = 1.67,  # training images are stored at this factor times image_size; crops are cut from them
    epochs: int = 20,  # largest number of epochs with a frozen encoder
    fine_tune_epochs: int = 20,  # largest number of epochs of the second stage, which trains all; 0 leaves it out
    batch_size: int = 16,  # images per step
    lr: float = 1e-3,  # learning rate of the decoder in the first stage
    fine_tune_lr: float = 3e-4,  # learning rate of the decoder in the second stage
    encoder_lr: float = 1e-4,  # learning rate of the encoder in the second stage
    plateau: int = 2,  # divide the rates by 3 after this many epochs without a better validation mIoU; 0 never
    patience: int = 6,  # end a stage after this many such epochs
    weight_decay: float = 1e-4,  # decoupled from the gradient, as in AdamW
    run: Run = Run(),
):
    train_set, val_set, test_set = load(dataset, image_size, run, train_scale=stored_scale)
    augment = [partial(random_resized_crop, size=image_size), random_hflip]
    train_loader = Loader(train_set, batch_size, run, shuffle=True, augment=augment)
    val_loader, test_loader = Loader(val_set, batch_size, run), Loader(test_set, batch_size, run)

    options = {"pretrained": pretrained, "encoder_weights": encoder_weights, "dilations": dilations_for(image_size)}
    network = build(model, train_set.num_classes, encoder=encoder, freeze_encoder=True, **options)
    criterion = CrossEntropy()
    train = partial(fit, network, train_loader, val_loader, criterion, patience=patience)
    adamw = partial(torch.optim.AdamW, weight_decay=weight_decay, fused=True)
    # torch waits for patience + 1 epochs
    schedule = partial(ReduceLROnPlateau, mode="max", factor=1 / 3, patience=(plateau or float("inf")) - 1, threshold=0)
    optimizer = adamw([{"name": "decoder", "params": network.decoder.parameters(), "lr": lr}])
    train(optimizer, schedule(optimizer), epochs=epochs, run=run)
    result = score(network, test_loader, criterion, run)
    if not fine_tune_epochs:
        return result

    run = run.then("fine_tuned")
    freeze(network.encoder, False)
    decoder = {"name": "decoder", "params": network.decoder.parameters(), "lr": fine_tune_lr}
    optimizer = adamw([{"name": "encoder", "params": network.encoder.parameters(), "lr": encoder_lr}, decoder])
    train(optimizer, schedule(optimizer), epochs=fine_tune_epochs, run=run)
    return score(network, test_loader, criterion, run)


if __name__ == "__main__":
    cli(main)
