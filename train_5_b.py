"""How good is a frozen ImageNet encoder if only the decoder is trained?

Change    train_4_c.py, with another network (common/models/encoder_fcn.py). The encoder is a frozen ResNet-18. The
          decoder has four transposed convolutions and dropout; it sees the coarsest map and the map's mean. To separate
          the effect of ImageNet from that of the network, compare with --no-pretrained: the same network, trained as a
          whole from random weights.
Result    on the generated scenes, 3 seeds: test mIoU 0.615 ± 0.003 (floor 0.102),
          pixel accuracy 0.834 ± 0.003 (floor 0.614), loss 0.472 ± 0.004
          python train_5_b.py --dataset shapes --image-size 96 --epochs 5 --encoder mobilenet_v1
          on part of VOC 2012, 3 seeds: test mIoU 0.217 ± 0.007 (floor 0.045),
          pixel accuracy 0.762 ± 0.008 (floor 0.717), loss 1.157 ± 0.012
          python train_5_b.py --dataset voc2012 --image-size 128 --epochs 6 --encoder mobilenet_v1
          on part of VOC 2007, 3 seeds: test mIoU 0.177 ± 0.003 (floor 0.046),
          pixel accuracy 0.753 ± 0.005 (floor 0.691), loss 2.039 ± 0.094
          python train_5_b.py --dataset voc2007 --image-size 128 --epochs 30 --encoder mobilenet_v1
Run       python train_5_b.py                                                # VOC 2007; fetches ResNet-18's weights
          python train_5_b.py --encoder mobilenet_v2                         # with another encoder
          python train_5_b.py --encoder-weights resnet18-f37072fd.pth        # weights fetched by hand
          python train_5_b.py --dataset shapes --image-size 96 --epochs 5 --no-pretrained    # needs no download
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
    stored_scale: float = 1.67,  # training images are stored this much larger than image_size, and cropped
    weight_decay: float = 1e-4,  # decoupled from the gradient, as in AdamW
    run: Run = Run(),
):
    train_set, val_set, test_set = load(dataset, image_size, run, train_scale=stored_scale)
    augment = [partial(random_rotated_crop, size=image_size), random_hflip]
    train_loader = Loader(train_set, batch_size, run, shuffle=True, augment=augment, copies=copies)
    val_loader, test_loader = Loader(val_set, batch_size, run), Loader(test_set, batch_size, run)

    model = EncoderFCN(encoder, train_set.num_classes, pretrained, encoder_weights, freeze_encoder=pretrained)
    criterion = CrossEntropy(class_weights(train_set) if weighted else None)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=weight_decay, fused=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * len(train_loader))

    fit(model, train_loader, val_loader, criterion, optimizer, scheduler, epochs=epochs, run=run)
    return score(model, test_loader, criterion, run)


if __name__ == "__main__":
    cli(main)
