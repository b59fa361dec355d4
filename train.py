"""How good is a plain fully convolutional network, trained from random weights?

Change    none. This is the baseline; the other scripts change one thing at a time.
Result    on the generated scenes, 3 seeds: test mIoU 0.696 ± 0.007 (floor 0.102),
          pixel accuracy 0.905 ± 0.004 (floor 0.614), loss 0.305 ± 0.014
          python train.py --dataset shapes --image-size 96 --epochs 5 --patience 0
          on part of VOC 2012, 3 seeds: test mIoU 0.060 ± 0.003 (floor 0.045),
          pixel accuracy 0.673 ± 0.020 (floor 0.717), loss 2.049 ± 0.221
          python train.py --dataset voc2012 --image-size 128 --epochs 6 --patience 0
          on part of VOC 2007, 3 seeds: test mIoU 0.056 ± 0.002 (floor 0.046),
          pixel accuracy 0.652 ± 0.004 (floor 0.691), loss 1.808 ± 0.008
          python train.py --dataset voc2007 --image-size 128 --epochs 30 --patience 0
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
