"""Can the network overfit one image?

Change    train_voc2012.py, with random weights, a single image repeated to a batch, and no augmentation. Where this
          fails, something is broken: it is the first thing to run when results look wrong.
Result    mIoU 0.002 untrained, 0.999 after 225 steps, on the first image of VOC 2012; 0.158 on one that it has never
          seen; 1.5 min of one core of an AMD EPYC
          python overfit.py --image-size 96 --steps 225
Run       python overfit.py                                           # one image of VOC 2012
          python overfit.py --dataset shapes --image-size 96          # needs no download
          python overfit.py --dataset shapes --model unet --image 7   # any model, any training image
"""

import torch

from common.cli import cli
from common.datasets import Size, load
from common.engine import evaluate, fit
from common.loader import Loader
from common.losses import CrossEntropy
from common.models import Encoder, Model, build
from common.reporting.plotting import plot_predictions
from common.run import Run
from common.system.errors import UserError

STEPS_PER_EPOCH = 25
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
    run: Run = Run(),
):
    run = run.start(main, locals())
    train_set, _, _ = load(dataset, image_size, run)
    if image >= len(train_set):
        raise UserError(f"--image {image}: {dataset} has the training images 0 to {len(train_set) - 1}")
    seen, unseen = train_set.select([image]), train_set.select([(image + 1) % len(train_set)])
    seen_loader, unseen_loader = Loader(seen, batch_size, run), Loader(unseen, batch_size, run)
    train_loader = Loader(seen, batch_size, run, copies=batch_size * STEPS_PER_EPOCH)

    network = build(model, train_set.num_classes, encoder=encoder, pretrained=False, freeze_encoder=False)
    network.to(run.device)
    criterion = CrossEntropy()
    epochs = -(-steps // STEPS_PER_EPOCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, fused=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * STEPS_PER_EPOCH)

    both = train_set.select([image, (image + 1) % len(train_set)])
    _, untrained = evaluate(network, seen_loader, criterion, run)
    plot_predictions(network, both, run, [0, 1], kind="untrained")
    fit(network, train_loader, seen_loader, criterion, optimizer, scheduler, epochs=epochs, run=run)
    plot_predictions(network, both, run, [0, 1])
    (_, on_seen), (_, on_unseen) = (evaluate(network, x, criterion, run) for x in (seen_loader, unseen_loader))

    run.print(f"mIoU on {seen.names[0]}: {untrained.mean_iou():.4f} untrained, {on_seen.mean_iou():.4f} trained")
    run.print(f"mIoU on {unseen.names[0]}, which it has never seen: {on_unseen.mean_iou():.4f}")
    run.print(f"see {run.plot()}, {run.plot('untrained')} and {run.plot('predictions')}")
    if not on_seen.mean_iou() >= ENOUGH:
        raise UserError(
            f"{model} reached mIoU {on_seen.mean_iou():.4f} on the image it was to overfit, not {ENOUGH}. "
            "Look at the curve: if it still falls, give more --steps; if it jumps, a smaller --lr; if it is flat, the "
            "network, the loss or the labels are broken"
        )
    return {"trained": on_seen.mean_iou(), "unseen": on_unseen.mean_iou(), "untrained": untrained.mean_iou()}


if __name__ == "__main__":
    cli(main)
