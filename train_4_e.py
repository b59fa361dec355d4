"""Does Muon learn in fewer steps than AdamW?

Change    train_4_a.py, with Muon (common/muon.py) in place of AdamW, at ten times the learning rate.
          AdamW scales the step of each weight. Muon scales the step of a whole layer, by its singular values.
          Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024.
Result    test mIoU 0.863 ± 0.003 on the generated scenes, 3 seeds (+0.163 ± 0.005 against train_4_a.py)
Run       python train_4_e.py --dataset shapes --image-size 96 --epochs 5    # needs no download
"""

import torch

from common.cli import cli
from common.datasets import Size, load
from common.engine import fit, score
from common.loader import Loader
from common.losses import CrossEntropy
from common.models import BasicFCN
from common.muon import Muon
from common.run import Run, experiment


@experiment
def main(
    dataset: str = "voc2007",  # voc2007, voc2012, pets, ade20k, drinks, shapes, or your own folder
    image_size: Size = 224,  # height and width in pixels; 120x160 is height x width
    epochs: int = 60,  # passes over the training images
    batch_size: int = 16,  # images per step
    lr: float = 1e-2,  # learning rate of Muon at the start; 0 at the end
    weight_decay: float = 1e-4,  # decoupled from the gradient, as in AdamW
    run: Run = Run(),
):
    train_set, val_set, test_set = load(dataset, image_size, run)
    train_loader = Loader(train_set, batch_size, run, shuffle=True)
    val_loader, test_loader = Loader(val_set, batch_size, run), Loader(test_set, batch_size, run)

    model = BasicFCN(train_set.num_classes)
    criterion = CrossEntropy()
    optimizer = Muon(model.parameters(), lr=lr, weight_decay=weight_decay)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * len(train_loader))

    fit(model, train_loader, val_loader, criterion, optimizer, scheduler, epochs=epochs, run=run)
    return score(model, test_loader, criterion, run)


if __name__ == "__main__":
    cli(main)
