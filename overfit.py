"""Can the network overfit one image?

Change    train_voc2012.py, with random weights, a single image repeated to a batch, and no augmentation. Where this
          fails, something is broken.
Result    mIoU 0.002 untrained, 0.9998 after 300 steps, on the first image of VOC 2012; 0.301 on one that it has never
          seen; 1.5 min of one core of an AMD EPYC
          python overfit.py --image-size 96
Run       python overfit.py                                           # one image of VOC 2012
          python overfit.py --dataset shapes --image-size 96 --model unet --image 7    # any model, any training image
          python overfit.py --trained best_train_voc2012.pt           # beside what training on all images gave
"""

import copy

import torch
from tqdm import tqdm

from common.checkpoint import record_run
from common.cli import cli
from common.datasets import Size, load
from common.engine import evaluate, prepare, train_one_epoch
from common.loader import Loader
from common.losses import CrossEntropy
from common.models import Encoder, Model, build
from common.reporting.dry_run import dry_run
from common.reporting.plotting import plot_overfit
from common.run import Run
from common.system.errors import UserError

ENOUGH = 0.99  # mIoU over the classes in the image


def main(
    dataset: str = "voc2012",  # voc2007, voc2012, pets, ade20k, drinks, shapes, or your own folder
    image_size: Size = 224,  # side of the square that the image is resized to, pixels; 120x160 is height x width
    image: int = 0,  # which training image to overfit
    model: Model = "encoder_unet",  # network, always from random weights
    encoder: Encoder = "resnet18",  # of the networks that have one
    steps: int = 300,  # updates of the weights
    batch_size: int = 4,  # times that the image is in a batch
    lr: float = 1e-3,  # learning rate of AdamW at the start; 0 at the end
    trained: str = "",  # best_*.pt of a training on the same data, to be shown beside
    run: Run = Run(),
):
    if run.init:
        raise UserError("overfit.py always begins with random weights; leave out --init")
    run = run.start(main, locals())
    train_set, val_set, _ = load(dataset, image_size, run)
    if image >= len(train_set):
        raise UserError(f"--image {image}: {dataset} has the training images 0 to {len(train_set) - 1}")
    seen, unseen = train_set.select([image]), val_set.select([0])
    train_loader = Loader(seen, batch_size, run, copies=batch_size)  # an epoch is a step

    network = build(model, train_set.num_classes, encoder=encoder, pretrained=False, freeze_encoder=False)
    criterion = CrossEntropy()
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, fused=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)

    untrained = copy.deepcopy(network).to(run.device)
    network, replica = prepare(network, criterion, run)
    if run.dry_run:
        dry_run(network, train_loader, criterion, optimizer, run)  # and exit

    history, best = [], (-1.0, {})
    for step in tqdm(range(1, steps + 1), "overfitting", unit=" steps", disable=True if run.rank else None):
        train_loader.set_epoch(step)
        loss, matrix = train_one_epoch(replica, train_loader, criterion, optimizer, scheduler, run)
        history.append({"step": step, "loss": loss, "miou": matrix.mean_iou()})
        if step % 25 == 0 or step == steps:  # BatchNorm's running averages lag behind the weights, now more, now less
            miou = evaluate(network, Loader(seen, batch_size, run), criterion, run)[1].mean_iou()
            best = max(best, (miou, copy.deepcopy(network.state_dict())), key=lambda pair: pair[0])
    network.load_state_dict(best[1])

    scores = {}
    for title, net, data in (("untrained", untrained, seen), ("trained", network, seen), ("unseen", network, unseen)):
        scores[title] = evaluate(net, Loader(data, batch_size, run), criterion, run)[1].mean_iou()
    record_run(run, train_set)
    plot_overfit(history, untrained, network, [seen.sample(0), unseen.sample(0)], trained, train_set, run)
    run.print(f"mIoU on {seen.names[0]}: {scores['untrained']:.4f} untrained, {scores['trained']:.4f} trained")
    run.print(f"mIoU on {unseen.names[0]}, which it has never seen: {scores['unseen']:.4f}")
    run.print(f"see {run.plot()} and {run.plot('predictions')}")
    if not scores["trained"] >= ENOUGH:
        raise UserError(
            f"{type(network).__name__} reached mIoU {scores['trained']:.4f} on the image it was to overfit, not "
            f"{ENOUGH}. Look at the curve: if it still falls, give more --steps; if it jumps, a smaller --lr; if it is "
            "flat, the network, the loss or the labels are broken"
        )
    return scores


if __name__ == "__main__":
    cli(main)
