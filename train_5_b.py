"""How far does a frozen ImageNet encoder get if only the decoder is trained?

Change    train_4_c.py, with a frozen encoder (MobileNet v1 in the result) and a decoder of four deconvolutions.
Result    test mIoU 0.613 ± 0.001 on the generated scenes, 3 seeds (-0.139 ± 0.006 against train_4_c.py)
Run       python train_5_b.py --dataset shapes --image-size 96 --epochs 5    # --no-pretrained needs no download
"""

from functools import partial

import torch

from common.augment import random_hflip, random_rotated_crop
from common.cli import cli
from common.datasets import Size, load
from common.engine import fit, score
from common.loader import Loader
from common.losses import CrossEntropy, class_weights
from common.models import Encoder, EncoderFCN
from common.run import Run, experiment


@experiment
def main(
    dataset: str = "voc2007",  # voc2007, voc2012, pets, ade20k, drinks, shapes, or your own folder
    image_size: Size = 224,  # height and width in pixels; 120x160 is height x width
    epochs: int = 60,  # passes over the training images
    batch_size: int = 16,  # images per step
    lr: float = 1e-3,  # learning rate of AdamW at the start; 0 at the end
    encoder: Encoder = "resnet18",  # ImageNet network, used without its classifier
    pretrained: bool = True,  # frozen ImageNet weights; --no-pretrained trains the encoder too, from random weights
    encoder_weights: str = "",  # file or folder with ImageNet weights, instead of a download
    weighted: bool = True,  # use class weights in the loss, as in train_4_c.py
    copies: int = 3,  # augmented copies of each image per epoch
    stored_scale: float = 1.67,  # training images are stored at this factor times image_size; crops are cut from them
    weight_decay: float = 1e-4,  # decoupled from the gradient, as in AdamW
    run: Run = Run(),
):
    train_set, val_set, test_set = load(dataset, image_size, run, train_scale=stored_scale)
    augment = [partial(random_rotated_crop, size=image_size), random_hflip]
    train_loader = Loader(train_set, batch_size, run, shuffle=True, augment=augment, copies=copies)
    val_loader, test_loader = Loader(val_set, batch_size, run), Loader(test_set, batch_size, run)

    model = EncoderFCN(encoder, train_set.num_classes, pretrained, encoder_weights, freeze_encoder=pretrained)
    criterion = CrossEntropy(class_weights(train_set) if weighted else None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * len(train_loader))

    fit(model, train_loader, val_loader, criterion, optimizer, scheduler, epochs=epochs, run=run)
    return score(model, test_loader, criterion, run)


if __name__ == "__main__":
    cli(main)
