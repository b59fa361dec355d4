"""How good is the best combination of everything here on photographs, for example on your own?

Change    train_voc2012.py plus ASPP on the coarsest feature map (common/models/aspp_unet.py), Muon instead of AdamW,
          random scales and colours, and a second test with test-time augmentation. The last epoch is kept. With all
          parts, mIoU is 0.896 on 67 held-out drinks at 150x200, with crops of 120x160. The comment beside each part
          gives the mIoU without it, for most parts with larger crops (docs/experiments.md).
Result    test mIoU 0.955 on 40 test images of the drinks at 240x320 after 20 epochs, one seed (docs/other-sets.md);
          0.861 in a room that the training did not see, mean of seven rooms (results/ablations.md)
Run       python train_best.py --dataset path/to/folder                      # fetches ResNet-18's ImageNet weights
          python train_best.py --dataset path/to/folder --encoder mobilenet_v3_large --image-size 240x320
          python train_best.py --crop-scale 1 --smallest-scale 0.5 --largest-scale 2    # VOC 2012, objects of all sizes
          python train_best.py --dataset shapes --image-size 96 --epochs 4 --no-pretrained --encoder-lr 1e-2
"""

from functools import partial

import torch

from common.augment import random_color, random_hflip, random_scale_crop
from common.cli import cli
from common.datasets import Size, load, scaled
from common.engine import fit, score
from common.loader import Loader
from common.losses import CrossEntropy
from common.models import ASPPUNet, Encoder
from common.models.deeplabv3 import dilations_for
from common.muon import Muon
from common.run import Run, experiment


@experiment
def main(
    dataset: str = "voc2012",  # voc2007, voc2012, pets, ade20k, drinks, shapes, or your own folder
    image_size: Size = 240,  # height and width in pixels; 240x320 is height x width
    crop_scale: float = 0.8,  # training crops have this factor times image_size
    epochs: int = 40,  # passes over the training images
    batch_size: int = 8,  # images per step
    lr: float = 1e-2,  # learning rate of the decoder at the start; 0 at the end
    encoder_lr: float = 5e-4,  # learning rate of the encoder: low, because it is already trained
    encoder: Encoder = "resnet18",  # ImageNet network, used without its classifier
    pretrained: bool = True,  # start from ImageNet weights; --no-pretrained starts from random ones
    encoder_weights: str = "",  # file or folder with ImageNet weights, instead of a download
    smallest_scale: float = 1.0,  # smallest zoom: 1 shows the whole image, 0.5 at half size with a border
    largest_scale: float = 1.6,  # largest zoom; 2 shows a quarter of the image's area
    weight_decay: float = 1e-4,  # decoupled from the gradient, as in AdamW
    run: Run = Run(),
):
    train_set, val_set, test_set = load(dataset, image_size, run)
    crop_size = scaled(image_size, crop_scale)  # zoomed objects look as large as in the test; with 1: 0.892
    crop = partial(random_scale_crop, size=crop_size, scale=(smallest_scale, largest_scale))  # without: 0.858
    augment = [crop, random_hflip, random_color]  # on images half as bright, one seed: 0.908, without colours 0.869
    train_loader = Loader(train_set, batch_size, run, shuffle=True, augment=augment)
    val_loader, test_loader = Loader(val_set, batch_size, run), Loader(test_set, batch_size, run)

    options = {"pretrained": pretrained, "encoder_weights": encoder_weights, "dilations": dilations_for(crop_size)}
    model = ASPPUNet(encoder, train_set.num_classes, **options)  # no skips: 0.852. VOC, no ASPP: 0.491, not 0.515
    criterion = CrossEntropy()
    groups = [
        {"name": "encoder", "params": model.encoder.parameters(), "lr": encoder_lr},
        {"name": "decoder", "params": model.decoder.parameters(), "lr": lr},
    ]
    optimizer = Muon(groups, weight_decay=weight_decay)  # with AdamW: 0.852
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * len(train_loader))

    # With few validation images, their best epoch may be a bad one. VOC, 36 epochs: 0.555 with keep="best", not 0.623
    fit(model, train_loader, val_loader, criterion, optimizer, scheduler, epochs=epochs, keep="last", run=run)
    return score(model, test_loader, criterion, run, tta=True)


if __name__ == "__main__":
    cli(main)
