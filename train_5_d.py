"""How far does a network get that has already learnt to segment?

Change    train_4_c.py, with a network of torchvision, trained on COCO, and a new last layer (but for 21 classes).
Result    mIoU not measured: the trained weights could not be fetched for our results
Run       python train_5_d.py --dataset path/to/folder    # fetches the weights; --weights reads a local file
"""

from functools import partial

import torch

from common.augment import random_hflip, random_rotated_crop
from common.cli import cli
from common.datasets import Size, load
from common.engine import fit, score
from common.loader import Loader
from common.losses import CrossEntropy, class_weights
from common.models import Network, TorchvisionNetwork
from common.run import Run, experiment


@experiment
def main(
    dataset: str = "voc2007",  # voc2007, voc2012, pets, ade20k, drinks, shapes, or your own folder
    image_size: Size = 224,  # height and width in pixels; 120x160 is height x width
    epochs: int = 60,  # passes over the training images
    batch_size: int = 16,  # images per step
    lr: float = 1e-3,  # learning rate of AdamW at the start; 0 at the end
    network: Network = "lraspp_mobilenet_v3_large",  # torchvision's name of the network
    pretrained: bool = True,  # start from torchvision's weights; --no-pretrained starts from random ones
    weights: str = "",  # local file with torchvision's weights, instead of a download
    copies: int = 3,  # augmented copies of each image per epoch
    stored_scale: float = 1.67,  # training images are stored at this factor times image_size; crops are cut from them
    weight_decay: float = 1e-4,  # decoupled from the gradient, as in AdamW
    run: Run = Run(),
):
    train_set, val_set, test_set = load(dataset, image_size, run, train_scale=stored_scale)
    augment = [partial(random_rotated_crop, size=image_size), random_hflip]
    train_loader = Loader(train_set, batch_size, run, shuffle=True, augment=augment, copies=copies)
    val_loader, test_loader = Loader(val_set, batch_size, run), Loader(test_set, batch_size, run)

    model = TorchvisionNetwork(train_set.num_classes, network, pretrained, weights)
    criterion = CrossEntropy(class_weights(train_set))
    groups = [{"params": model.net.backbone.parameters(), "lr": lr / 10}, {"params": model.net.classifier.parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, fused=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * len(train_loader))

    fit(model, train_loader, val_loader, criterion, optimizer, scheduler, epochs=epochs, run=run)
    return score(model, test_loader, criterion, run)


if __name__ == "__main__":
    cli(main)
