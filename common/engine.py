"""The training loop and the evaluation, for every experiment."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from common.checkpoint import Checkpointer, start_from
from common.history import best_row, epoch_row, last_epoch, learning_rates, out_of_patience
from common.loader import Loader
from common.losses import weighted_loss
from common.metrics import ConfusionMatrix, WeightedMean
from common.reporting.diagnosis import check_logits, check_schedule, diverged
from common.reporting.progress import Progress, summarize
from common.reporting.scores import report_test, report_unlabelled
from common.run import Run
from common.system.distributed import broadcast_buffers, data_parallel, ddp_scale
from common.system.errors import torch_errors
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

    Both are measured in training mode, on augmented images, while the weights change. The loop never waits for a GPU,
    with two exceptions: fp16 with an optimizer that is not fused, and the SyncBatchNorm of several GPUs.

    Raises:
        UserError: a loss is not finite.
    """
    model.train()
    matrix, mean_loss = ConfusionMatrix(loader.data.num_classes, run.device), WeightedMean()
    seed = loader.seed_of(loader.epoch)
    for number, (images, masks) in enumerate(loader):
        torch.manual_seed(seed + number * run.world_size + run.rank)  # dropout, if any, needs no state to resume
        with run.autocast():
            logits = model(images)
        loss, weight = weighted_loss(criterion, logits.float(), masks)
        optimizer.zero_grad()
        run.scaler.scale(loss * ddp_scale(weight)).backward()
        if clip_norm:
            run.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        with run.autocast():  # for the matrix products of Muon
            run.scaler.step(optimizer)  # unless a gradient is beyond fp16's range
        run.scaler.update()
        if scheduler and not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()

        matrix.update(logits.detach().max(1).indices, masks)
        mean_loss.update(loss, weight)
        if progress:
            progress.update(loss, len(images))
            if not math.isfinite(progress.loss):  # from a GPU, the loss arrives some batches late
                break
    if (number := mean_loss.first_not_finite()) is not None:
        raise diverged(loader.describe(number), optimizer.param_groups[-1]["lr"], run)
    return mean_loss.compute(), matrix.gathered()


@torch.no_grad()
def evaluate(model: nn.Module, loader: Loader, criterion: Callable, run: Run) -> tuple[float, ConfusionMatrix]:
    """Return the mean loss over the non-void pixels of `loader`, and the confusion matrix of its images."""
    model.eval()
    matrix, mean_loss = ConfusionMatrix(loader.data.num_classes, run.device), WeightedMean()
    for images, masks in loader:
        with run.autocast():
            logits = model(images)
        check_logits(logits, masks, loader.data.num_classes)
        mean_loss.update(*weighted_loss(criterion, logits.float(), masks))
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
    keep: Literal["best", "last"] = "best",
    previous: Sequence[dict] = (),
) -> list[dict]:
    """Train `model`, then give it the weights of the epoch that is kept; return the history.

    After every epoch, history.csv and last_<run>.pt are written, and best_<run>.pt if the epoch is kept; at the end, or
    at Ctrl-C, the curves. With `--resume` training goes on after the last finished epoch.

    Args:
        model: any module from images (B, 3, H, W) to logits (B, num_classes, H, W); moved to the run's device.
        criterion: a module or function from (logits, masks) to a scalar, see `common.losses`.
        scheduler: stepped after every batch; a ReduceLROnPlateau after every validation, with the mIoU.
        epochs: how often the training set is seen; with 0 the stage is left out.
        patience: stop after so many epochs without a better validation mIoU; 0 never stops early.
        clip_norm: norm to which a larger gradient is clipped; 0 leaves it as it is.
        keep: the epoch with the best validation mIoU, or the last, where the rate falls to 0 and few validation images
            would choose by chance.
        previous: what an earlier `fit` of the same run returned, if training has stages. Epochs are counted on, the
            best is sought among all, and `--resume` passes over stages that are finished.

    Returns:
        The rows of history.csv, one for each epoch of this stage and those before; the first, epoch 0, is untrained.

    Raises:
        UserError: a checkpoint that does not fit, a loss that is not finite.
    """
    if epochs < 1:
        return list(previous)
    check_schedule(scheduler, epochs, len(train_loader), patience, keep)
    with torch_errors(train_loader.batch_size):
        network, replica = prepare(model, criterion, run)
    if run.dry_run:
        from common.reporting.dry_run import dry_run  # brings matplotlib and Triton, which others need later or never

        dry_run(model, train_loader, criterion, optimizer, run)  # and exit
    checkpointer = Checkpointer(model, optimizer, scheduler, val_loader.data, train_loader.data, run, previous)
    history, finished = checkpointer.restore()
    if finished:
        return history
    if run.init and not history:
        run.print(start_from(model, Path(run.init)))

    stage, epochs = checkpointer.stage, epochs + last_epoch(previous)
    with Progress(history, epochs, train_loader, run) as progress, torch_errors(train_loader.batch_size):
        if not history:  # epoch 0 is the model before training
            val = evaluate(network, val_loader, criterion, run)
            history.append(epoch_row(0, stage, learning_rates(optimizer), None, val))
            progress.end_epoch(model, val_loader)
        while last_epoch(history) < epochs and not out_of_patience(history, stage, patience):
            start, rates, epoch = time.perf_counter(), learning_rates(optimizer), last_epoch(history) + 1
            train_loader.set_epoch(epoch)
            train = train_one_epoch(replica, train_loader, criterion, optimizer, scheduler, run, progress, clip_norm)
            trained = time.perf_counter()
            broadcast_buffers(model)  # each process has BatchNorm statistics of its own share
            val = evaluate(network, val_loader, criterion, run)
            row = epoch_row(epoch, stage, rates, train, val)
            row["train_images_per_second"] = train_loader.num_images / (trained - start)
            row["seconds"] = time.perf_counter() - start
            if not math.isfinite(row["val_loss"]):
                raise diverged(f"in validation in epoch {epoch}", rates["lr"], run)
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(row["val_miou"])
            row["kept"] = float(keep == "last" or best_row([*history, row]) is row)
            history.append(row)
            checkpointer.save(history)
            progress.end_epoch(model, val_loader)
    checkpointer.load_best(history)
    summarize(model, history, train_loader.data, val_loader.data, epochs, run)
    return history


def score(model: nn.Module, test_loader: Loader, criterion: Callable, run: Run, stage: str = "") -> dict:
    """Score `model` on the test set, once: print a table, write runs/<run>/test.json, draw some predictions.

    Ends with hints at what to try, where history and scores call for it. Of a `stage`, which is not the
    headline, only print a line and write test_<stage>.json.

    Returns:
        What was written, see `common.reporting.scores`; nothing if the test set has no masks.
    """
    if test_loader.data.unlabelled:
        return report_unlabelled(test_loader.data, run, stage)
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
