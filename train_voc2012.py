"""How much do skip connections and fine-tuning add to an ImageNet encoder?

Change    train_5_b.py, with skip connections (common/models/encoder_unet.py) and random resized crops of larger images.
          The whole network is trained, the encoder at a fifth of the learning rate.
Result    test mIoU 0.259 on part of VOC 2012, 0.618 over six of its classes, one seed; more in docs/experiments.md
Run       python train_voc2012.py                                            # VOC 2012; fetches ResNet-18's weights
          python train_voc2012.py --epochs 4 --batch-size 4 --copies 1    # as long as in the original project
          python train_voc2012.py --encoder mobilenet_v1 --encoder-weights FILE  # another encoder, local weights
          python train_voc2012.py --dataset shapes --image-size 96 --epochs 5 --no-pretrained
"""

from functools import partial

import torch

from common.augment import random_hflip, random_resized_crop
from common.cli import cli
from common.datasets import Size, load
from common.engine import fit, score
from common.loader import Loader
from common.losses import CrossEntropy
from common.models import Encoder, EncoderUNet
from common.run import Run, experiment


@experiment
def main(
    dataset: str = "voc2012",  # voc2007, voc2012, pets, ade20k, drinks, shapes, or your own folder
    image_size: Size = 224,  # height and width in pixels; 120x160 is height x width
    stored_scale: float = 1.67,  # training images are stored at this factor times image_size; crops are cut from them
    epochs: int = 20,  # passes over the training images
    batch_size: int = 8,  # images per step
    lr: float = 1e-3,  # learning rate of the decoder at the start; 0 at the end
    encoder_lr: float = 2e-4,  # learning rate of the encoder: low, because it is already trained
    encoder: Encoder = "resnet18",  # ImageNet network, used without its classifier
    pretrained: bool = True,  # start from ImageNet weights; --no-pretrained starts from random ones
    encoder_weights: str = "",  # file or folder with ImageNet weights, instead of a download
    copies: int = 3,  # crops of each image per epoch
    smallest_crop: float = 0.35,  # smallest area of a crop, as a fraction of the image's area
    weight_decay: float = 1e-4,  # decoupled from the gradient, as in AdamW
    run: Run = Run(),
):
    train_set, val_set, test_set = load(dataset, image_size, run, train_scale=stored_scale)
    augment = [partial(random_resized_crop, size=image_size, scale=(smallest_crop, 1)), random_hflip]
    train_loader = Loader(train_set, batch_size, run, shuffle=True, augment=augment, copies=copies)
    val_loader, test_loader = Loader(val_set, batch_size, run), Loader(test_set, batch_size, run)

    model = EncoderUNet(encoder, train_set.num_classes, pretrained, encoder_weights)
    criterion = CrossEntropy()
    groups = [
        {"name": "encoder", "params": model.encoder.parameters(), "lr": encoder_lr},
        {"name": "decoder", "params": model.decoder.parameters(), "lr": lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * len(train_loader))

    fit(model, train_loader, val_loader, criterion, optimizer, scheduler, epochs=epochs, run=run)
    return score(model, test_loader, criterion, run)


if __name__ == "__main__":
    cli(main)
