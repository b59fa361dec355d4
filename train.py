"""How far does a small fully convolutional network get from random weights?

Change    none: this is the baseline of the lesson. Each other script changes one thing.
Result    test mIoU 0.696 ± 0.007 on the generated scenes, 3 seeds
Run       python train.py --dataset shapes --image-size 96 --epochs 5 --patience 0    # needs no download
          python download.py && python train.py                                       # VOC 2007
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
    epochs: int = 60,  # largest number of passes over the training images
    batch_size: int = 16,  # images per step
    lr: float = 1e-3,  # learning rate of AdamW
    weight_decay: float = 1e-4,  # decoupled from the gradient, as in AdamW
    patience: int = 20,  # stop after this many epochs without a better validation mIoU; 0 never stops
    run: Run = Run(),
):
    train_set, val_set, test_set = load(dataset, image_size, run)
    train_loader = Loader(train_set, batch_size, run, shuffle=True)
    val_loader, test_loader = Loader(val_set, batch_size, run), Loader(test_set, batch_size, run)

    model = BasicFCN(train_set.num_classes)
    criterion = CrossEntropy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, fused=True)

    fit(model, train_loader, val_loader, criterion, optimizer, epochs=epochs, patience=patience, run=run)
    return score(model, test_loader, criterion, run)


if __name__ == "__main__":
    cli(main)
