"""The training loop and the evaluation, for every experiment."""

import math
import time
from collections.abc import Callable
from typing import Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from common.checkpoint import Checkpointer
from common.history import best_row, epoch_row, last_epoch, learning_rates, out_of_patience
from common.inference import FlipsAndScales
from common.loader import Loader
from common.losses import weighted_loss
from common.metrics import ConfusionMatrix, WeightedMean
from common.reporting.diagnosis import check_logits, check_schedule, diverged
from common.reporting.dry_run import dry_run
from common.reporting.progress import Progress, summarize
from common.reporting.scores import report_test, report_tta, report_unlabelled
from common.run import Run
from common.system.distributed import broadcast_buffers, data_parallel, ddp_scale
from common.system.errors import torch_errors


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

    Both are measured in training mode, on augmented images, while the weights change. The loop does not wait
    for the GPU, except in fp16 with an optimizer that is not fused, and in SyncBatchNorm on several GPUs.

    Raises:
        UserError: a loss is not finite.
    """
    model.train()
    matrix, mean_loss = ConfusionMatrix(loader.data.num_classes, run.device), WeightedMean()
    seed = loader.seed_of(loader.epoch)
    for number, (images, masks) in enumerate(loader):
        torch.manual_seed(seed + number * run.world_size + run.rank)  # so dropout is the same after --resume
        with run.autocast():
            logits = model(images)
        loss, weight = weighted_loss(criterion, logits.float(), masks)
        optimizer.zero_grad()
        # DDP gives each process the same share; the scale turns that into the mean over the valid pixels of all.
        run.scaler.scale(loss * ddp_scale(weight)).backward()
        if clip_norm:
            run.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        with run.autocast():  # Muon multiplies matrices in its step
            run.scaler.step(optimizer)  # skips the step if a gradient exceeds fp16's range
        run.scaler.update()
        if scheduler and not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()
        matrix.update(logits.detach().max(1).indices, masks)
        mean_loss.update(loss, weight)
        if progress:
            progress.update(loss, len(images))
            if not math.isfinite(progress.loss):  # on a GPU, the loss is seen a few batches later
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
) -> list[dict]:
    """Train `model`, then load the weights of its best (or last) epoch; return the rows of history.csv.

    Args:
        criterion: maps (logits, masks) to a scalar, the mean over the valid pixels, see `common.losses`.
        scheduler: stepped after every batch; a ReduceLROnPlateau is stepped after every validation, with the mIoU.
        patience: stop after this many epochs without a better validation mIoU; 0 never stops early.
        clip_norm: clip gradients to this norm; 0 does not clip.
        keep: keep the epoch with the best validation mIoU, or the last epoch.

    Raises:
        UserError: a checkpoint is of another model or training, or a loss is not finite.
    """
    check_schedule(scheduler, epochs, len(train_loader), patience, keep)
    with torch_errors(train_loader.batch_size):
        network, replica = prepare(model, criterion, run)
        if run.dry_run:
            dry_run(model, train_loader, criterion, optimizer, run)  # exits
        checkpointer = Checkpointer(model, optimizer, scheduler, train_loader.data, val_loader.data, run)
        run.history = history = checkpointer.restore() if run.resume else checkpointer.begin()
        with Progress(history, epochs, train_loader, run) as progress:
            if not history:  # epoch 0 scores the untrained model
                val = evaluate(network, val_loader, criterion, run)
                history.append(epoch_row(0, learning_rates(optimizer), None, val))
                progress.end_epoch(model, val_loader)
            while last_epoch(history) < epochs and not out_of_patience(history, patience):
                start, rates, epoch = time.perf_counter(), learning_rates(optimizer), last_epoch(history) + 1
                train_loader.set_epoch(epoch)
                train = train_one_epoch(
                    replica, train_loader, criterion, optimizer, scheduler, run, progress, clip_norm
                )
                seconds = time.perf_counter() - start
                broadcast_buffers(model)  # without SyncBatchNorm, BatchNorm statistics differ between processes
                val = evaluate(network, val_loader, criterion, run)
                if not math.isfinite(val[0]):
                    raise diverged(f"in validation in epoch {epoch}", rates["lr"], run)
                if isinstance(scheduler, ReduceLROnPlateau):
                    scheduler.step(val[1].mean_iou())
                history.append(epoch_row(epoch, rates, train, val, time.perf_counter() - start))
                history[-1]["train_images_per_second"] = train_loader.num_images / seconds
                history[-1]["kept"] = float(keep == "last" or best_row(history) is history[-1])
                checkpointer.save(history)
                progress.end_epoch(model, val_loader)
    checkpointer.load_kept(history)
    summarize(model, history, train_loader.data, val_loader.data, epochs, run)
    return history


def score(model: nn.Module, test_loader: Loader, criterion: Callable, run: Run, tta: bool = False) -> dict:
    """Score `model` on the test set: print a table, write test.json, draw some predictions.

    Args:
        tta: score a second time, with test-time augmentation, and write test_tta.json.

    Returns:
        The contents of test.json, see `common.reporting.scores`; {} if the test set has no masks.
    """
    if test_loader.data.unlabelled:
        return report_unlabelled(test_loader.data, run)
    with torch_errors(test_loader.batch_size):
        loss, matrix = evaluate(model, test_loader, criterion, run)
        result = report_test(model, test_loader, loss, matrix, run)
        if tta:
            loss, matrix = evaluate(FlipsAndScales(model), test_loader, criterion, run)
            report_tta(model, test_loader, loss, matrix, run)
    return result


def prepare(model: nn.Module, criterion: Callable, run: Run) -> tuple[nn.Module, nn.Module]:
    """Move both to the device; return the network for evaluation and the one for training, wrapped in DDP if needed."""
    model.to(run.device, memory_format=torch.channels_last)
    if isinstance(criterion, nn.Module):
        criterion.to(run.device)
    network = torch.compile(model) if run.compile else model
    return network, data_parallel(network)
