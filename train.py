"""How far does a plain fully convolutional network get, trained from random weights?

Change    none: this is the baseline that the other scripts change one thing at a time.
Result    mIoU 0.696 ± 0.007 on the generated scenes with --patience 0
Run       python train.py --dataset shapes --image-size 96 --epochs 5    # needs no download
          python download.py && python train.py                          # VOC 2007
          python train.py --lr 3e-4 --batch-size 8                        # any parameter of main() is a flag
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
    image_size: Size = 224,  # side of the square that every image is resized to, pixels; 120x160 is height x width
    epochs: int = 60,  # passes over the training images, at most
    batch_size: int = 16,  # images per step
    lr: float = 1e-3,  # learning rate of AdamW
    weight_decay: float = 1e-4,  # decoupled from the gradient, as AdamW has it
    patience: int = 20,  # stop after so many epochs without a better validation mIoU; 0 never stops
    run: Run = Run(),
):
    train_set, val_set, test_set = load(dataset, image_size, run)
    train_loader = Loader(train_set, batch_size, run, shuffle=True)
    val_loader = Loader(val_set, batch_size, run)
    test_loader = Loader(test_set, batch_size, run)

    model = BasicFCN(train_set.num_classes)
    criterion = CrossEntropy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, fused=True)

    fit(model, train_loader, val_loader, criterion, optimizer, epochs=epochs, patience=patience, run=run)
    return score(model, test_loader, criterion, run)


if __name__ == "__main__":
    cli(main)
