"""What does a trained model see in my images?

    python predict.py holiday.jpg                                  # the newest best_*.pt here, on one image
    python predict.py photos --checkpoint best_train_5_b.pt        # on a folder and all folders in it
    python predict.py photos/images --score photos/masks --split test    # scores at the images' own size

Writes, at each image's own size, a palette PNG of class numbers to masks/; the image tinted by class, with a legend, to
overlays/; and the share of every class in every image to shares.csv, all below predictions/<run>/<image or folder>/.
The class numbers are 0, 1, 2, ... in the order of the columns of shares.csv, whatever values your own masks have.
Photographs are turned upright as their camera says, and so are their masks.

The network sees each image stretched to the size at which it was validated; its logits are enlarged to the image's own
size. --image-size shows it another size, --own-size what the file holds. What then has more than --max-pixels is cut
into tiles that overlap by a quarter; a network that looks at an image as a whole sees less of it in a tile.

--score reads true masks as the training did: files of the same names as the images, or one file for one image.
"""

import contextlib
import csv
import os
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from common.checkpoint import load_model
from common.cli import cli
from common.datasets import Size, pair
from common.datasets.reading import find_files, name_below
from common.errors import UserError, is_out_of_memory, more
from common.files import atomic, defer_signals, read_json, write_json
from common.labels import LabelMap
from common.metrics import MIOU, PIXEL_ACCURACY, ConfusionMatrix
from common.models.encoders import STRIDE
from common.overlay import overlay
from common.run import Run, choose_device, choose_precision, short_name
from common.stream import AHEAD, Item, ahead, is_large, predicted, read

HUGE = 1 << 28  # pixels of an image; those with more are refused


def main(
    images: Path,  # an image, or a folder that is searched for images in depth
    checkpoint: str = "",  # best_*.pt of a training; by default the newest in the current folder
    out: str = "",  # folder that is written to; by default predictions/<run>/<image or folder>
    score: str = "",  # folder of true masks, or one mask, to score the predictions by
    split: Literal["all", "train", "val", "test"] = "all",  # images that the training had in this split, if not all
    tta: bool = False,  # average over the image and its mirror image, each at 3/4, 1 and 5/4 of its size
    image_size: Size = 0,  # pixels that the network sees, 224 or 120x160; 0 is the size that it was validated at
    own_size: bool = False,  # let the network see each image at its own size
    max_pixels: int = 1 << 20,  # that the network sees at a time; larger images are cut into tiles
    overwrite: bool = False,  # replace what an earlier prediction has left
    device: str = "auto",  # auto, cpu, cuda, cuda:1, mps
    precision: Literal["auto", "bf16", "fp32"] = "auto",  # auto takes bf16 where the processor is fast at it
):
    """Predict, write and score; return the folder that was written to."""
    if own_size and image_size:
        raise UserError("--own-size and --image-size exclude each other; leave out one of them")
    if max_pixels < STRIDE**2:
        raise UserError(f"--max-pixels {max_pixels} must be at least {STRIDE**2}")
    Image.MAX_IMAGE_PIXELS = HUGE
    warnings.simplefilter("error", Image.DecompressionBombWarning)  # else it refuses twice as many
    model, about = load_model(find_checkpoint(checkpoint))
    run = Run(name=about["run"], device=choose_device(device))
    run.precision = choose_precision(precision, run.device)
    model.to(run.device, memory_format=torch.channels_last)
    given = images.stem if images.is_file() else short_name(str(images))
    folder = Path(out) if out else Path("predictions", short_name(run.name), given)
    items, others = find_items(images, folder)
    if split != "all":
        items = in_split(items, run, split)
    if score:
        find_truths(items, Path(score), images)
    check_absent(items, folder, overwrite)
    size = None if own_size else pair(image_size) if image_size else tuple(about["image_size"])

    seen = "their own size" if own_size else "x".join(map(str, size))
    print(f"{run.name}: {run.where()}; images: {len(items)}, seen at {seen}{', flipped and scaled' * tta}")
    warn_of_training_images(items, run, split, bool(score))
    label_map = LabelMap(**about["label_map"]) if about.get("label_map") else LabelMap.plain(about["palette"])
    matrix, total, stopped = ConfusionMatrix(len(about["classes"])), Shares(about["classes"]), None
    ready = partial(read, size=size, label_map=label_map, skip=images.is_dir())
    table, scores = folder / "shares.csv", folder / "score.json"
    with (
        atomic(table) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(items), unit=" images", disable=None, dynamic_ncols=True, leave=False) as bar,
    ):
        rows, writing, start = csv.writer(file), deque(), time.perf_counter()
        rows.writerow(["image", "width", "height", *about["classes"], *([MIOU, PIXEL_ACCURACY] if score else [])])
        try:
            with enough_memory(max_pixels):
                for item, classes in predicted(model, ahead(pool, ready, items), max_pixels, tta, run):
                    bar.update()
                    if item.problem:
                        others.append(item.problem)
                        continue
                    with defer_signals():  # counted, in the table and on disk, or neither
                        row = [item.path.name if images.is_file() else item.path.relative_to(images).as_posix()]
                        row += [*item.image.size, *(f"{share:.6f}" for share in total.add(classes))]
                        row += compare(classes, item.target, matrix) if score else []
                        rows.writerow(row)
                        writing.append(pool.submit(write, folder, item, classes, about))
                    while len(writing) > (0 if is_large(item.image) else AHEAD):
                        writing[0].result()
                        writing.popleft()
        except (KeyboardInterrupt, UserError) as error:  # what was done is kept
            stopped = error
        with enough_memory(max_pixels):
            while writing:
                writing.popleft().result()
        if not total.images and not isinstance(stopped, KeyboardInterrupt):
            raise stopped or UserError(f"none of the images could be read: {others[-1]}")
        scores.unlink(missing_ok=True)  # an earlier one is of other predictions
    seconds = time.perf_counter() - start
    print(total.table())
    if others:
        shown = "; ".join(others[:5]) + f"; and {len(others) - 5} others" * (len(others) > 5)
        print(f"skipped {len(others)} files that are no images: {shown}")
    if score and not stopped:
        print("\n" + matrix.table(f"{total.images} images at their own size", about["classes"]))
        write_json(scores, {"images": total.images, **matrix.report(about["classes"])})
    done = f"{total.images} of {len(items)} images in {seconds:.1f} s, {total.images / seconds:.1f} images/s"
    print(f"{'interrupted: ' if stopped else ''}{done}; see {folder}")
    if stopped:
        raise stopped
    return folder


@contextlib.contextmanager
def enough_memory(max_pixels: int) -> Iterator[None]:
    """Turn what is said of memory that does not suffice into a sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError, as is the processor's
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"the memory does not suffice for {max_pixels} pixels at a time; "
            f"try --max-pixels {max(STRIDE**2, max_pixels // 4)}, or a smaller --image-size"
        ) from None


def find_checkpoint(given: str) -> Path:
    """Return the checkpoint to use: the one that is given, or the newest best_*.pt in the current folder."""
    if given:
        return Path(given)
    found = sorted(Path().glob("best_*.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(f"no best_*.pt in {Path.cwd()}, which a training leaves; name one with --checkpoint")
    if len(found) > 1:
        print(f"{found[-1]} is the newest of {len(found)} models here; --checkpoint names another")
    return found[-1]


def find_items(images: Path, out: Path) -> tuple[list[Item], list[str]]:
    """Return the images to look at, and the names of files that are none; what was written to `out` is passed over."""
    if images.is_file():
        return [Item(images.stem, images, written=images.stem)], []
    if not images.is_dir():
        raise UserError(f"{images} is missing; name an image, or a folder with images")
    found, others = find_files(images)
    found = [path for path in found if not is_output(path, images, out)]
    if not found:
        raise UserError(f"{images} holds no image")
    names, files = [name_below(images, path) for path in found], [path.relative_to(images).as_posix() for path in found]
    written = names
    while len(set(written)) < len(written):  # a.jpg, a.png and a.jpg.png cannot be written to a.png and a.jpg.png alone
        count = Counter(written)
        written = [name if count[name] == 1 else file for name, file in zip(written, files, strict=True)]
    items = [Item(name, path, written=to) for name, path, to in zip(names, found, written, strict=True)]
    return items, [str(path.relative_to(images)) for path in others]


def is_output(path: Path, images: Path, out: Path) -> bool:
    """Return whether the file `path` below `images` lies in masks/ or overlays/ of `out`, or of an earlier output."""
    folders = [folder for folder in path.parents if images in folder.parents and folder.name in ("masks", "overlays")]
    beside = [folder.parent for folder in folders]
    return any((folder / "shares.csv").is_file() or folder.resolve() == out.resolve() for folder in beside)


def recorded_split(run: Run, split: str) -> list[str] | None:
    """Return the names of the images that the training had in `split`, if its record is here."""
    return read_json(run.folder / "splits.json").get(split)


def in_split(items: list[Item], run: Run, split: str) -> list[Item]:
    """Return those of `items` that the training had in `split`."""
    names = recorded_split(run, split)
    if names is None:
        raise UserError(f"--split {split} needs {run.folder / 'splits.json'}, where the training has recorded it")
    chosen = [item for item in items if item.name in set(names)]
    if len(chosen) < len(names):
        raise UserError(f"{len(names) - len(chosen)} of the {len(names)} images of {run.name}'s {split} are not there")
    return chosen


def warn_of_training_images(items: list[Item], run: Run, split: str, scored: bool) -> None:
    """Say so if a score is about to be taken on images that the model was trained on."""
    names = set(recorded_split(run, "train") or ()) if scored and split == "all" else set()
    if seen := sum(item.name in names for item in items):
        print(f"{seen} of the {len(items)} images have the names of training images; --split test leaves them out")


def find_truths(items: list[Item], masks: Path, images: Path) -> None:
    """Give each item the path of its true mask."""
    if images.is_file() and masks.is_file():
        items[0].truth = masks
        return
    if not masks.is_dir():
        raise UserError(f"--score {masks} is no folder; name the one that holds a mask for each image")
    found = {name_below(masks, path): path for path in find_files(masks)[0]}
    for item in items:
        item.truth = found.get(item.name)
    if without := [item.path for item in items if not item.truth]:
        raise UserError(f"{without[0]}{more(without)} has no mask in {masks}")


def check_absent(items: list[Item], folder: Path, overwrite: bool) -> None:
    """Raise UserError if something would be overwritten that was not meant to be."""
    targets = [
        folder / "shares.csv",
        folder / "score.json",
        *(path for item in items for path in targets_of(folder, item)),
    ]
    if not overwrite and (there := [path for path in targets if path.exists()]):
        raise UserError(f"{there[0]}{more(there)} is there already; add --overwrite, or name an --out")


def targets_of(folder: Path, item: Item) -> tuple[Path, Path]:
    """Return where the mask and the overlay of an image go."""
    return folder / "masks" / f"{item.written}.png", folder / "overlays" / f"{item.written}.png"


def write(folder: Path, item: Item, classes: np.ndarray, about: dict) -> None:
    """Write the mask and the overlay of an image."""
    mask, over = targets_of(folder, item)
    picture = Image.fromarray(classes)
    picture.putpalette(np.array(about["palette"], dtype=np.uint8).tobytes())
    for path, image in ((mask, picture), (over, overlay(item.image, classes, about["classes"], about["palette"]))):
        with atomic(path) as temporary:
            image.save(temporary, format="PNG", compress_level=3)  # a third of the time of 6, a tenth more bytes


def compare(classes: np.ndarray, target: np.ndarray, total: ConfusionMatrix) -> list[str]:
    """Add an image to the confusion matrix; return its own mIoU and pixel accuracy."""
    matrix = ConfusionMatrix(total.counts.shape[1])
    matrix.update(torch.from_numpy(classes).long()[None], torch.from_numpy(target).long()[None])
    total.add(matrix)
    return [f"{matrix.mean_iou():.4f}", f"{matrix.pixel_accuracy():.4f}"]


class Shares:
    """Sums up which part of the images each class covers."""

    def __init__(self, classes: list[str]):
        self.classes, self.images = classes, 0
        self.sum, self.count = np.zeros(len(classes)), np.zeros(len(classes), dtype=int)

    def add(self, classes: np.ndarray) -> np.ndarray:
        """Add an image's classes (H, W) uint8; return the part of it that each class covers."""
        shares = np.array(Image.fromarray(classes).histogram()[: len(self.classes)]) / classes.size  # copies no pixels
        self.images, self.sum, self.count = self.images + 1, self.sum + shares, self.count + (shares > 0)
        return shares

    def table(self) -> str:
        """Return the mean share of each class that was seen, and in how many images it was, as lines."""
        width = max(map(len, [*self.classes, "class"]))
        lines = [f"{'class':<{width}}  mean share  in images"]
        for name, share, count in zip(self.classes, self.sum / max(1, self.images), self.count, strict=True):
            if count:
                lines.append(f"{name:<{width}}{share:>12.2%}{count:>11}")
        return "\n".join(lines)


if __name__ == "__main__":
    cli(main)
