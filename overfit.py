"""Can the network overfit one image?

Change    train_voc2012.py, with random weights, batches of one repeated image, and no augmentation. If this fails,
          something is broken.
Result    mIoU 0.9998 on the first image of VOC 2012 after 300 steps
Run       python overfit.py                                           # one image of VOC 2012
          python overfit.py --dataset shapes --image-size 96 --model unet --image 7    # any model, any training image
          python overfit.py --trained best_train_voc2012.pt           # compare with a trained model
"""

import copy
from pathlib import Path

import torch
from tqdm import tqdm

from common.checkpoint import load_model, record_run
from common.cli import cli
from common.datasets import Size, load
from common.engine import evaluate, prepare, train_one_epoch
from common.loader import Loader
from common.losses import CrossEntropy
from common.models import Encoder, Model, build
from common.reporting.diagnosis import not_overfitted
from common.reporting.dry_run import dry_run
from common.reporting.overfitting import report_overfit
from common.run import Run, experiment
from common.system.errors import UserError, torch_errors

REQUIRED_MIOU = 0.99  # over the classes in the image


@experiment
def main(
    dataset: str = "voc2012",  # voc2007, voc2012, pets, ade20k, drinks, shapes, or your own folder
    image_size: Size = 224,  # height and width in pixels; 120x160 is height x width
    image: int = 0,  # which training image to overfit
    model: Model = "encoder_unet",  # network; it always starts from random weights
    encoder: Encoder = "resnet18",  # encoder, for the networks that have one
    steps: int = 300,  # number of weight updates
    batch_size: int = 4,  # copies of the image in a batch
    lr: float = 1e-3,  # learning rate of AdamW at the start; 0 at the end
    trained: str = "",  # best_*.pt of a training on the same data, for comparison
    run: Run = Run(),
):
    if run.init:
        raise UserError("overfit.py always starts from random weights; leave out --init")
    train_set, val_set, _ = load(dataset, image_size, run)
    if image >= len(train_set):
        raise UserError(f"--image {image}: the training images of {dataset} are 0 to {len(train_set) - 1}")
    seen, unseen = train_set.select([image]), val_set.select([0])
    train_loader = Loader(seen, batch_size, run, copies=batch_size)  # one step per epoch
    loaders = [Loader(data, batch_size, run) for data in (seen, unseen)]  # one image each, for the scores

    network = build(model, train_set.num_classes, encoder=encoder, pretrained=False, freeze_encoder=False)
    criterion = CrossEntropy()
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, fused=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)

    network, replica = prepare(network, criterion, run)
    if run.dry_run:
        dry_run(network, train_loader, criterion, optimizer, run)  # and exit
    models = {"untrained": copy.deepcopy(network), "overfitted": network}
    if trained:
        models["trained on all images"], contents = load_model(Path(trained))
        if contents["classes"] != list(train_set.classes):
            raise UserError(f"--trained {trained} has other classes than {dataset}; give another")

    history, best = [], (-1.0, {})
    with torch_errors(batch_size):
        evaluate(network, loaders[0], criterion, run)  # raises the UserError if something does not fit
        for step in tqdm(range(1, steps + 1), "overfitting", unit=" steps", disable=True if run.rank else None):
            train_loader.set_epoch(step)
            loss, matrix = train_one_epoch(replica, train_loader, criterion, optimizer, scheduler, run)
            history.append({"step": step, "loss": loss, "miou": matrix.mean_iou()})
            if step % 25 == 0 or step == steps:  # keep the best: BatchNorm's running averages lag behind
                miou = evaluate(network, loaders[0], criterion, run)[1].mean_iou()
                best = max(best, (miou, copy.deepcopy(network.state_dict())), key=lambda pair: pair[0])
    network.load_state_dict(best[1])

    record_run(run, network, train_set)
    results = {title: [evaluate(net.to(run.device), data, criterion, run) for data in loaders]
               for title, net in models.items()}  # fmt: skip
    scores = report_overfit(history, models, results, [seen, unseen], run)
    if not (miou := scores["overfitted"]["train"]["mIoU"]) >= REQUIRED_MIOU:
        raise not_overfitted(network, miou, REQUIRED_MIOU)
    return scores


if __name__ == "__main__":
    cli(main)
