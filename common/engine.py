"""The one training loop and the one evaluation, for every experiment."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm import tqdm

from common import checkpoint, plotting
from common.dry_run import dry_run
from common.errors import UserError, is_out_of_memory
from common.files import uninterrupted, write_json
from common.hints import hints
from common.loader import Loader
from common.losses import pixel_weight
from common.metrics import MIOU, PIXEL_ACCURACY, ConfusionMatrix, WeightedMean
from common.models import count_parameters
from common.resuming import best_row, keep, resume
from common.run import Run
from common.system.distributed import all_reduce_mean, barrier, broadcast_buffers


def train_one_epoch(
    model: nn.Module,
    loader: Loader,
    criterion: Callable,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None,
    run: Run,
    bar: tqdm,
) -> tuple[float, ConfusionMatrix]:
    """Train on every batch of `loader` once; return the mean loss and the confusion matrix.

    Both are of the network in training mode on augmented images, as it was at each batch. Nothing in the loop waits
    for a GPU.

    Raises:
        UserError: a loss that is not finite.
    """
    model.train()
    matrix, mean_loss = ConfusionMatrix(loader.data.num_classes, run.device), WeightedMean()
    shown = torch.zeros((), pin_memory=run.device.type == "cuda")
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
        if run.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), run.clip_norm)
        lr = optimizer.param_groups[-1]["lr"]
        optimizer.step()
        if scheduler and not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()

        matrix.update(logits.detach().max(1).indices, masks)
        mean_loss.update(loss, weight)
        shown.copy_(loss.detach(), non_blocking=True)  # the bar shows what has arrived, and waits for nothing
        bar.set_postfix_str(f"loss {shown.item():.3f}", refresh=False)
        bar.update(len(images) * run.world_size)
        if not math.isfinite(shown.item()):
            raise UserError(not_finite(shown.item(), loader, number, lr))
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


def not_finite(loss: float, loader: Loader, number: int, lr: float) -> str:
    """Say that the loss of batch `number` of the epoch, from 0, is not finite, and what to do."""
    names = [loader.data.names[i] for i in loader.batches()[number].tolist()]
    images = ", ".join(names[:8]) + ", ..." * (len(names) > 8)
    return (
        f"the loss is {loss} in batch {number + 1} of {len(loader)} of epoch {loader.epoch} ({images}), at learning "
        f"rate {lr:.2g}; try a smaller one, or --clip-norm 1"
    )


@contextlib.contextmanager
def explained(loader: Loader) -> Iterator[None]:
    """Turn what batches that are too large or too small make torch say into a sentence."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            "batch normalisation cannot work on a single value: a batch has one image, which the network shrinks or "
            "pools to one pixel; use a larger --batch-size or --image-size"
        ) from None
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError, as is the processor's
        if not is_out_of_memory(error):
            raise
        size = loader.batch_size
        smaller = f"--batch-size {size // 2}" if size > 1 else "a smaller --image-size"
        raise UserError(f"the memory does not suffice for batches of {size} images; try {smaller}") from None


FIGURE_EPOCHS = 5  # after which TensorBoard gets a picture of predictions


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
    before: Sequence[dict] = (),
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
        before: what an earlier `fit` of the same run returned, if training has stages. Epochs are counted on, the best
            is sought among all, and `--resume` passes over stages that are finished.

    Returns:
        The rows of history.csv, one for each epoch of this stage and those before.

    Raises:
        UserError: nothing to train, a checkpoint that does not fit, a loss that is not finite.
    """
    if epochs < 1 and before:
        return list(before)
    if epochs < 1:
        raise UserError(f"--epochs {epochs} must be at least 1")
    model.to(run.device, memory_format=torch.channels_last)
    if isinstance(criterion, nn.Module):
        criterion.to(run.device)
    history, stage = list(before), before[-1]["stage"] + 1 if before else 1
    if run.resume:
        contents = checkpoint.load(run.last_checkpoint)
        if contents.get("stage", stage) > stage:
            run.print(f"stage {stage} is finished")
            checkpoint.load_weights(model, checkpoint.load(run.best_checkpoint), run.best_checkpoint)
            return [row for row in contents["history"] if row["stage"] <= stage]
        if contents.get("stage", stage) == stage:
            history = resume(contents, model, optimizer, scheduler, val_loader.data, run)
    elif run.last_checkpoint.exists() and not before and not run.dry_run:
        run.print(f"starting over: {run.last_checkpoint} will be replaced (--resume goes on from it)")
    if run.dry_run:
        with explained(train_loader):
            dry_run(model, train_loader, criterion, optimizer, run)
        sys.exit()
    if not before:
        run.record()
    if train_loader.augment and run.rank == 0 and not before:
        plotting.plot_augmentation(train_loader, run)
    epochs += len(before)
    if run.world_size > 1 and run.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # in place; it does not exist for processors
    network = torch.compile(model) if run.compile else model
    trained = DistributedDataParallel(network) if run.world_size > 1 else network
    images, matrix = train_loader.num_images, None
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(progress_bar(run, total=epochs * images, initial=len(history) * images))
        log = stack.enter_context(tensorboard(run, len(history))) if run.tensorboard and run.rank == 0 else None
        stack.enter_context(explained(train_loader))
        try:
            while len(history) < epochs and not out_of_patience(history[len(before) :], patience):
                epoch, start = len(history) + 1, time.perf_counter()
                bar.set_description(f"epoch {epoch}/{epochs}", refresh=False)
                train_loader.set_epoch(epoch)
                row = {"epoch": epoch, "stage": stage, "lr": optimizer.param_groups[-1]["lr"]}
                loss, matrix = train_one_epoch(trained, train_loader, criterion, optimizer, scheduler, run, bar)
                row |= {"train_loss": loss, "train_miou": matrix.mean_iou()}
                row |= {"train_pixel_accuracy": matrix.pixel_accuracy()}
                rate = images / (time.perf_counter() - start)
                broadcast_buffers(model)  # each process has BatchNorm statistics of its own share
                loss, matrix = evaluate(network, val_loader, criterion, run)
                row |= {"val_loss": loss, "val_miou": matrix.mean_iou(), "val_pixel_accuracy": matrix.pixel_accuracy()}
                if not math.isfinite(loss):
                    raise UserError(
                        f"the loss is {loss} in validation in epoch {epoch}, at learning rate {row['lr']:.2g}; try a "
                        "smaller one, or --clip-norm 1"
                    )
                if isinstance(scheduler, ReduceLROnPlateau):
                    scheduler.step(row["val_miou"])
                row |= {"train_images_per_second": rate, "seconds": time.perf_counter() - start}
                with uninterrupted():  # in memory and on disk, or neither
                    history.append(row)
                    if run.rank == 0:
                        keep(model, optimizer, scheduler, stage, history, val_loader.data, run)
                bar.clear()
                run.print(epoch_line(history, epochs))
                if log:
                    for key, value in row.items():
                        log.add_scalar(key, value, epoch)
                    if epoch % FIGURE_EPOCHS == 0 or epoch == epochs:
                        log.add_figure("validation", plotting.predictions(model, val_loader.data, run), epoch)
        except KeyboardInterrupt:
            bar.close()
            if run.rank == 0 and history:
                plotting.plot_curves(history, best_row(history), run.plot(), run.name)
            state = f"{run.last_checkpoint} holds what came before, --resume goes on from there"
            run.print(f"interrupted in epoch {len(history) + 1}: {state if history else 'nothing is kept of it'}")
            raise
    if run.rank == 0:
        plotting.plot_curves(history, best_row(history), run.plot(), run.name)
    barrier()  # until the first process has written
    best, contents = best_row(history), checkpoint.load(run.best_checkpoint)
    if contents["scores"].get("val_loss") != best["val_loss"]:
        raise UserError(f"{run.best_checkpoint} is not of this run's best epoch, {best['epoch']}; was it replaced?")
    checkpoint.load_weights(model, contents, run.best_checkpoint)
    stopped = f" after {patience} epochs without a better one" if len(history) < epochs else ""
    run.print(f"best validation mIoU {best['val_miou']:.4f} in epoch {best['epoch']} of {len(history)}{stopped}")
    for hint in hints(history, matrix, train_loader.data.classes) if matrix else ():
        run.print(f"hint: {hint}")
    return history


def score(model: nn.Module, test_loader: Loader, criterion: Callable, run: Run) -> dict:
    """Score `model` on the test set, once: print a table, write runs/<run>/test.json, draw some predictions.

    Returns:
        What test.json holds: every score of `common.metrics` under "scores", the same for predicting the most frequent
        class everywhere under "floor", the IoU per class (None for a class in neither target nor prediction), the loss,
        and by name the mean IoU of each image over the classes in it (None if all of it is void).
    """
    with explained(test_loader):
        loss, matrix = evaluate(model, test_loader, criterion, run)
    data = test_loader.data
    result = {"dataset": data.dataset, "images": len(data), "image_size": data.image_size}
    result |= {"parameters": count_parameters(model), "loss": loss} | matrix.report(data.classes)
    by_image = sorted(zip(test_loader.order(), matrix.image_scores().tolist(), strict=True))
    result["image_miou"] = {data.names[i]: None if math.isnan(miou) else miou for i, miou in by_image}
    if run.rank == 0:
        write_json(run.folder / "test.json", result)
        plotting.plot_predictions(model, data, run, chosen=plotting.draw(data, run.seed))

    height, width = data.image_size
    scores, floor = result["scores"], result["floor"]
    run.print("\n" + matrix.table(f"{data.dataset} test, {len(data)} images at {height}x{width}", data.classes))
    run.print(
        f"test: mIoU {scores[MIOU]:.4f} (floor {floor[MIOU]:.4f}) over {result['classes_in_target']} of "
        f"{data.num_classes} classes, pixel accuracy {scores[PIXEL_ACCURACY]:.4f} (floor {floor[PIXEL_ACCURACY]:.4f}), "
        f"loss {loss:.3f}"
    )
    run.print(f"see {run.plot()} and {run.plot('predictions')}; the model is {run.best_checkpoint}")
    return result


def out_of_patience(history: list[dict], patience: int) -> bool:
    """Return whether the last `patience` epochs brought no better validation mIoU; never if `patience` is 0."""
    return bool(patience and history) and history[-1]["epoch"] - best_row(history)["epoch"] >= patience


def epoch_line(history: list[dict], epochs: int) -> str:
    """Return the last epoch in one line; a star marks the best so far."""
    row = history[-1]
    parts = [f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  lr {row['lr']:.1e}"]
    for name in ("train", "val"):
        loss, miou, accuracy = (row[f"{name}_{key}"] for key in ("loss", "miou", "pixel_accuracy"))
        parts.append(f"{name} loss {loss:.3f} mIoU {miou:.3f} acc {accuracy:.3f}")
    return "  |  ".join(parts) + f"  |  {row['seconds']:.1f} s" + " *" * (best_row(history) is row)


def progress_bar(run: Run, total: int, initial: int) -> tqdm:
    """Return a bar over the images of all epochs, with rate and time to go; silent where nobody watches."""
    return tqdm(
        total=total,
        initial=initial,
        unit=" images",
        disable=True if run.rank else None,  # None: shown on a terminal only
        dynamic_ncols=True,
        leave=False,
        smoothing=0.05,
    )


def tensorboard(run: Run, epochs_done: int):
    """Return a TensorBoard writer for runs/<run>/ that forgets what came after `epochs_done`."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # only those who ask for it need the package
    except ImportError:
        raise UserError("--tensorboard needs the package tensorboard: pip install tensorboard") from None
    return SummaryWriter(run.folder, purge_step=epochs_done + 1)
