"""The training loop and the evaluation, for every experiment."""

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from common.checkpoint import Checkpointer, best_row, learning_rates
from common.loader import Loader
from common.losses import pixel_weight
from common.metrics import ConfusionMatrix, WeightedMean
from common.reporting.diagnosis import diverged
from common.reporting.dry_run import dry_run
from common.reporting.progress import Progress, summarize
from common.reporting.scores import report_test
from common.run import Run
from common.system.distributed import all_reduce_mean, broadcast_buffers, data_parallel
from common.system.errors import UserError, torch_errors
from common.system.files import read_json


def train_one_epoch(
    model: nn.Module,
    loader: Loader,
    criterion: Callable,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None,
    run: Run,
    progress: Progress | None = None,
    clip_norm: float = 0,
) -> tuple[float, ConfusionMatrix]:
    """Train on every batch of `loader` once; return the mean loss and the confusion matrix.

    Both are of the network in training mode on augmented images, as it was at each batch. Nothing in the loop waits
    for a GPU.

    Raises:
        UserError: a loss that is not finite.
    """
    model.train()
    matrix, mean_loss = ConfusionMatrix(loader.data.num_classes, run.device), WeightedMean()
    seed = loader.seed_of(loader.epoch)
    for number, (images, masks) in enumerate(loader):
        torch.manual_seed(seed + number * run.world_size + run.rank)  # dropout, if any, needs no state to resume
        with run.autocast():
            logits = model(images)
        loss = criterion(logits.float(), masks) if len(images) else logits.float().sum()  # of an empty share: 0
        weight = pixel_weight(criterion, masks)
        # Over several processes, gradients are averaged: this makes that the mean over all pixels.
        share = weight / all_reduce_mean(weight).clamp(min=1e-12)
        optimizer.zero_grad()
        (loss * share).backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        if scheduler and not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()

        matrix.update(logits.detach().max(1).indices, masks)
        mean_loss.update(loss, weight)
        if progress and not math.isfinite(shown := progress.update(loss, len(images))):
            raise diverged(shown, loader.describe(number), optimizer.param_groups[-1]["lr"])
    return mean_loss.compute(), matrix.gathered()


@torch.no_grad()
def evaluate(model: nn.Module, loader: Loader, criterion: Callable, run: Run) -> tuple[float, ConfusionMatrix]:
    """Return the mean loss over the non-void pixels of `loader`, and the confusion matrix of its images."""
    model.eval()
    matrix, mean_loss = ConfusionMatrix(loader.data.num_classes, run.device), WeightedMean()
    for images, masks in loader:
        with run.autocast():
            logits = model(images)
        loss = criterion(logits.float(), masks) if len(images) else logits.float().sum()
        mean_loss.update(loss, pixel_weight(criterion, masks))
        matrix.update(logits.max(1).indices, masks)
    return mean_loss.compute(), matrix.gathered()


def fit(
    model: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    criterion: Callable,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None = None,
    *,
    epochs: int,
    run: Run,
    patience: int = 0,
    clip_norm: float = 0,
    previous: Sequence[dict] = (),
) -> list[dict]:
    """Train `model`, then give it the weights of the epoch with the best validation mIoU; return the history.

    After every epoch, history.csv and last_<run>.pt are written, and best_<run>.pt if the epoch is the best so far; at
    the end, or at Ctrl-C, the curves. With `--resume` training goes on after the last finished epoch.

    Args:
        model: any module from images (B, 3, H, W) to logits (B, num_classes, H, W); moved to the run's device.
        criterion: a module or function from (logits, masks) to a scalar, see `common.losses`.
        scheduler: stepped after every batch; a ReduceLROnPlateau after every validation, with the mIoU.
        epochs: how often the training set is seen; with 0, a stage after the first is left out.
        patience: stop after so many epochs without a better validation mIoU; 0 never stops early.
        clip_norm: norm to which a larger gradient is clipped; 0 leaves it as it is.
        previous: what an earlier `fit` of the same run returned, if training has stages. Epochs are counted on, the
            best is sought among all, and `--resume` passes over stages that are finished.

    Returns:
        The rows of history.csv, one for each epoch of this stage and those before.

    Raises:
        UserError: nothing to train, a checkpoint that does not fit, a loss that is not finite.
    """
    if epochs < 1:
        if not previous:
            raise UserError(f"--epochs {epochs} must be at least 1")
        return list(previous)
    network, replica = prepare(model, criterion, run)
    if run.dry_run:
        dry_run(model, train_loader, criterion, optimizer, run)  # and exit
    checkpointer = Checkpointer(model, optimizer, scheduler, val_loader.data, run, previous)
    history, finished = checkpointer.restore()
    if finished:
        return history

    epochs += len(previous)
    with Progress(history, epochs, train_loader, run) as progress, torch_errors(train_loader.batch_size):
        while len(history) < epochs and not out_of_patience(history[len(previous) :], patience):
            start, rates = time.perf_counter(), learning_rates(optimizer)
            train_loader.set_epoch(len(history) + 1)
            train = train_one_epoch(replica, train_loader, criterion, optimizer, scheduler, run, progress, clip_norm)
            trained = time.perf_counter()
            broadcast_buffers(model)  # each process has BatchNorm statistics of its own share
            loss, matrix = evaluate(network, val_loader, criterion, run)
            if not math.isfinite(loss):
                raise diverged(loss, f"in validation in epoch {len(history) + 1}", rates["lr"])
            row = {"epoch": len(history) + 1, "stage": checkpointer.stage} | rates
            row |= scores_of("train", *train) | scores_of("val", loss, matrix)
            row["train_images_per_second"] = train_loader.num_images / (trained - start)
            row["seconds"] = time.perf_counter() - start
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(row["val_miou"])
            history.append(row)
            checkpointer.save(history)
            progress.end_epoch(model, val_loader)
    checkpointer.load_best(history)
    summarize(history, epochs, run)
    return history


def score(model: nn.Module, test_loader: Loader, criterion: Callable, run: Run, stage: str = "") -> dict:
    """Score `model` on the test set, once: print a table, write runs/<run>/test.json, draw some predictions.

    Ends with hints at what to try, where history and scores call for it. After a `stage` that is not the last, only
    print a line and write test_<stage>.json.

    Returns:
        What was written, see `common.reporting.scores`.
    """
    if stage and run.resume and (scored := read_json(run.folder / f"test_{stage}.json")):
        return scored  # its model may be gone
    with torch_errors(test_loader.batch_size):
        loss, matrix = evaluate(model, test_loader, criterion, run)
    return report_test(model, test_loader, loss, matrix, run, stage)


def prepare(model: nn.Module, criterion: Callable, run: Run) -> tuple[nn.Module, nn.Module]:
    """Move model and criterion to the device; return the network to evaluate, and that which averages gradients."""
    model.to(run.device, memory_format=torch.channels_last)
    if isinstance(criterion, nn.Module):
        criterion.to(run.device)
    network = torch.compile(model) if run.compile else model
    return network, data_parallel(network)


def scores_of(split: str, loss: float, matrix: ConfusionMatrix) -> dict[str, float]:
    """Return the columns of history.csv that are about "train" or "val"."""
    scores = {"loss": loss, "miou": matrix.mean_iou(), "pixel_accuracy": matrix.pixel_accuracy()}
    return {f"{split}_{name}": value for name, value in scores.items()}


def out_of_patience(history: list[dict], patience: int) -> bool:
    """Return whether the last `patience` epochs brought no better validation mIoU; never if `patience` is 0."""
    return bool(patience and history) and history[-1]["epoch"] - best_row(history)["epoch"] >= patience
