"""Show the progress of a training: a progress bar, a line for each epoch, curves, TensorBoard."""

import contextlib

import torch
from torch import nn
from tqdm import tqdm

from common.datasets.segmentation_set import SegmentationSet
from common.history import best_row, kept_row, last_epoch
from common.loader import Loader
from common.run import Run
from common.system.errors import UserError

# common.reporting.plotting is imported where it is used, so training starts without waiting for matplotlib.

FIGURE_EPOCHS = 5  # TensorBoard gets a picture of predictions every 5 epochs


class Progress(contextlib.AbstractContextManager):
    """Context manager that shows progress; draws the curves at the end, also after Ctrl-C.

    `history` has a row for each finished epoch; `fit` appends more, up to `epochs`.
    """

    def __init__(self, history: list[dict], epochs: int, loader: Loader, run: Run):
        self.history, self.epochs, self.run = history, epochs, run
        self.bar = tqdm(
            total=epochs * loader.num_images,
            initial=last_epoch(history) * loader.num_images,
            unit=" images",
            disable=True if run.rank else None,  # None: shown only on a terminal
            dynamic_ncols=True,
            leave=False,
        )
        if loader.augment and run.rank == 0:
            from common.reporting import plotting

            plotting.plot_augmentation(loader, run)
        self.log = tensorboard(run, last_epoch(history)) if run.tensorboard and run.rank == 0 else None
        self.loss = 0.0  # latest value that has arrived from the GPU
        self._sent = torch.zeros((), pin_memory=run.device.type == "cuda")

    def update(self, loss: torch.Tensor, images: int) -> None:
        """Count the `images` of a batch, and show its loss (0-d)."""
        self._sent.copy_(loss.detach(), non_blocking=True)  # does not wait for the GPU
        self.loss = self._sent.item()
        self.bar.set_description(f"epoch {last_epoch(self.history) + 1}/{self.epochs}", refresh=False)
        self.bar.set_postfix_str(f"loss {self.loss:.3f}", refresh=False)
        self.bar.update(images * self.run.world_size)

    def end_epoch(self, model: nn.Module, val_loader: Loader) -> None:
        """Print the last row of the history, and send it to TensorBoard."""
        self.bar.clear()
        self.run.print(epoch_line(self.history, self.epochs))
        if self.log:
            row, epoch = self.history[-1], last_epoch(self.history)
            for key, value in row.items():
                self.log.add_scalar(key, value, epoch)
            if epoch % FIGURE_EPOCHS == 0 or epoch == self.epochs:
                from common.reporting import plotting

                self.log.add_figure("validation", plotting.predictions(model, [val_loader.data], self.run), epoch)

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.bar.close()
        if self.log:
            self.log.close()
        if kind is KeyboardInterrupt:
            done = last_epoch(self.history)
            state = f"{self.run.last_checkpoint} has epoch {done}, and --resume continues from there"
            self.run.print(f"interrupted in epoch {done + 1}: {state if done else 'nothing was saved'}")
        if kind in (None, KeyboardInterrupt) and last_epoch(self.history) and self.run.rank == 0:
            from common.reporting import plotting

            plotting.plot_curves(self.history, kept_row(self.history), self.run.plot(), self.run.name)


def summarize(
    model: nn.Module, history: list[dict], train_set: SegmentationSet, val_set: SegmentationSet, epochs: int, run: Run
) -> None:
    """Print the best of at most `epochs` epochs; draw predictions of `model` on images of both sets."""
    if run.rank == 0:
        from common.reporting import plotting

        plotting.save(plotting.predictions(model, [train_set, val_set], run, count=2), run.plot("train_val"))
    best, kept, last = best_row(history), kept_row(history), last_epoch(history)
    waited = last - best["epoch"]
    stopped = f" after {waited} epoch{'s' * (waited != 1)} without a better one" if last < epochs else ""
    other = f"; epoch {kept['epoch']} is kept, with {kept['val_miou']:.4f}" if kept is not best else ""
    run.print(f"best validation mIoU {best['val_miou']:.4f} in epoch {best['epoch']} of {last}{stopped}{other}")


def epoch_line(history: list[dict], epochs: int) -> str:
    """Return a line about the last epoch; a star marks the best epoch so far."""
    row = history[-1]
    number = f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}"
    parts = [f"{number}  lr {row['lr']:.1e}" if row["epoch"] else f"{number}  at the start"]
    for name in ("train", "val") if row["epoch"] else ("val",):
        loss, miou, accuracy = (row[f"{name}_{key}"] for key in ("loss", "miou", "pixel_accuracy"))
        parts.append(f"{name} loss {loss:.3f} mIoU {miou:.3f} acc {accuracy:.3f}")
    if row["epoch"]:
        parts.append(f"{row['seconds']:.1f} s" + " *" * (best_row(history) is row))
    return "  |  ".join(parts)


def tensorboard(run: Run, epochs_done: int):
    """Return a TensorBoard writer for runs/<run>/; epochs after `epochs_done` are deleted from the log."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # the package is optional
    except ImportError:
        raise UserError("--tensorboard needs the package tensorboard: pip install tensorboard") from None
    return SummaryWriter(run.folder, purge_step=epochs_done + 1)
