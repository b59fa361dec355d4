"""Does cosine annealing of the learning rate help the baseline?

Change    train.py, with a learning rate that falls from lr to 0 along a half cosine, in every step. There is no early
          stopping, because it would cut the schedule short. (The results below are without it in both scripts.)
          Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017 (without restarts).
Result    on the generated scenes, 3 seeds: test mIoU 0.700 ± 0.007 (floor 0.102),
          pixel accuracy 0.910 ± 0.001 (floor 0.614), loss 0.291 ± 0.001
          python train_4_a.py --dataset shapes --image-size 96 --epochs 5
          on part of VOC 2012, 3 seeds: test mIoU 0.062 ± 0.004 (floor 0.045),
          pixel accuracy 0.681 ± 0.010 (floor 0.717), loss 1.893 ± 0.125
          python train_4_a.py --dataset voc2012 --image-size 128 --epochs 6
          on part of VOC 2007, 3 seeds: test mIoU 0.053 ± 0.001 (floor 0.046),
          pixel accuracy 0.645 ± 0.018 (floor 0.691), loss 1.861 ± 0.092
          python train_4_a.py --dataset voc2007 --image-size 128 --epochs 30
Run       python train_4_a.py --dataset shapes --image-size 96 --epochs 5    # needs no download
          python train_4_a.py                                                # VOC 2007
"""

import torch

from common.cli import cli
from common.datasets import Size, load
from common.engine import fit, score
from common.loader import Loader
from common.losses import CrossEntropy
from common.models import BasicFCN
from common.run import Run, experiment


@experiment
def main(
    dataset: str = "voc2007",  # voc2007, voc2012, pets, ade20k, drinks, shapes, or your own folder
    image_size: Size = 224,  # height and width in pixels; 120x160 is height x width
    epochs: int = 60,  # passes over the training images
    batch_size: int = 16,  # images per step
    lr: float = 1e-3,  # learning rate of AdamW at the start; 0 at the end
    weight_decay: float = 1e-4,  # decoupled from the gradient, as in AdamW
    run: Run = Run(),
):
    train_set, val_set, test_set = load(dataset, image_size, run)
    train_loader = Loader(train_set, batch_size, run, shuffle=True)
    val_loader, test_loader = Loader(val_set, batch_size, run), Loader(test_set, batch_size, run)

    model = BasicFCN(train_set.num_classes)
    criterion = CrossEntropy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * len(train_loader))

    fit(model, train_loader, val_loader, criterion, optimizer, scheduler, epochs=epochs, run=run)
    return score(model, test_loader, criterion, run)


if __name__ == "__main__":
    cli(main)
