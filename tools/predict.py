"""Predict images with a trained model.

    python -m tools.predict holiday.jpg                                       # the newest best_*.pt here, on one image
    python -m tools.predict a.jpg b.jpg photos --checkpoint best_train_5_b.pt # on several images and a folder
    python -m tools.predict photos/images --score photos/masks --split test   # scores at the images' own size
    python -m tools.predict photo.jpg --model lraspp_mobilenet_v3_large       # VOC's classes, without any training

Writes to predictions/<run>/<image or folder>/, at each image's own size:

- masks/: a palette PNG; pixel value i is class i, the i-th class column of shares.csv, counted from 0
- overlays/: the image tinted by class, with a legend
- shares.csv: the share of every class in every image

Photographs are turned upright by their EXIF orientation; the predicted masks fit the upright photographs. The network
sees each image at the size of its validation images, at --image-size, or with --own-size at its own size. A --model
of torchvision sees it at 520 pixels on the short side, because torchvision validated it so. Images with more than
--max-pixels are predicted in overlapping windows. The logits are resized to the image's own size.

--score takes a folder of true masks with the names of the images, or one mask if there is one image. With --model,
these masks hold VOC's class numbers.
"""

import csv
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from common.checkpoint import find_checkpoint, load_model
from common.cli import cli
from common.datasets import Size, height_and_width, voc
from common.datasets.listing import not_read
from common.datasets.reading import files_by_name, find_files, name_below, read_image, read_pair
from common.inference import SCALES, predict
from common.labels import LabelMap
from common.metrics import MIOU, PIXEL_ACCURACY, ConfusionMatrix
from common.models import Network, TorchvisionNetwork
from common.models.encoders import STRIDE
from common.reporting.overlay import overlay
from common.reporting.scores import report_masks
from common.run import Run, short_name
from common.system.errors import UserError, is_out_of_memory, more
from common.system.files import atomic, read_json

SHORT_SIDE = 520  # pixels, at which torchvision validated its networks
THREADS = 4  # they read the next images and write the previous results


def main(
    images: list[Path],  # images, and folders that are searched recursively
    checkpoint: str = "",  # best_*.pt of a training; by default the newest in the current folder
    model: Literal[("", *get_args(Network))] = "",  # a network that torchvision has trained, instead of a checkpoint
    weights: str = "",  # local file with the weights of --model, instead of a download
    out: str = "",  # folder for the results; by default predictions/<run>/<image or folder>
    score: str = "",  # true masks, a folder or one file, to compare the predictions with
    split: Literal["all", "train", "val", "test"] = "all",  # only images that had this split in the training
    tta: bool = False,  # average over the image and its mirror image, each at 3/4, 1 and 5/4 of its size
    image_size: Size = 0,  # size that the network sees, 224 or 120x160; 0 is the size of its validation images
    own_size: bool = False,  # let the network see each image at its own size
    max_pixels: int = 1 << 20,  # pixels that the network sees at a time; larger images are predicted in windows
    overwrite: bool = False,  # replace earlier results
    device: str = "auto",  # auto, cpu, cuda, cuda:1, mps
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto",  # auto: bf16 if it is faster, fp16 on older GPUs
):
    """Predict, write and score; return the folder that was written to."""
    if own_size and image_size:
        raise UserError("--own-size and --image-size exclude each other; leave out one of them")
    least = int(STRIDE * (max(SCALES) if tta else 1)) ** 2
    if max_pixels < least:
        raise UserError(f"--max-pixels {max_pixels} must be at least {least}{' with --tta' * tta}")
    if model and (checkpoint or split != "all"):
        raise UserError("--model is a network of torchvision: it goes without --checkpoint and --split")
    if weights and not model:
        raise UserError("--weights holds the weights of a --model; for a best_*.pt, use --checkpoint")
    network, metadata = trained_by_torchvision(model, weights) if model else load_model(find_checkpoint(checkpoint))
    run = Run(name=metadata["run"], device=device, precision=precision).prepared()
    network.to(run.device, memory_format=torch.channels_last)
    classes, palette = metadata["classes"], metadata["palette"]
    label_map = LabelMap(**metadata["label_map"]) if metadata.get("label_map") else LabelMap.plain(palette)
    size = None if own_size else height_and_width(image_size) if image_size else metadata["image_size"]

    folder = Path(out or Path("predictions", run.name, folder_name(images, tta)))
    for path in (folder / "masks", folder / "overlays", folder / "shares.csv"):
        if path.exists() and not overwrite:
            raise UserError(f"{path} is there already; add --overwrite, or choose another folder with --out")
    paths, others = find_images(images, folder)
    if split != "all":
        paths = select_split(paths, run.folder / "splits.json", split)
    elif score and (seen := set(read_json(run.folder / "splits.json").get("train", [])) & paths.keys()):
        print(f"{len(seen)} of these images have the name of a training image; --split test leaves them out")
    masks = find_masks(Path(score), paths) if score else {}
    remove_earlier(folder)
    shown = "their own size" if own_size else "x".join(map(str, size)) if size else f"{SHORT_SIDE} on the short side"
    print(f"{run.name}: {run.where()}; images: {len(paths)}, seen at {shown}{', with test-time augmentation' * tta}")

    def read(name: str) -> tuple[Image.Image, np.ndarray | None]:
        return read_pair(paths[name], masks[name], label_map) if score else (read_image(paths[name]), None)

    def infer(image: Image.Image) -> np.ndarray:
        scale = 1 if own_size else SHORT_SIDE / min(image.size)
        seen = size or [round(side * scale) for side in reversed(image.size)]
        return predict(network, image, tuple(seen), run, tta, max_pixels)

    matrix, rows, problems, stopped = ConfusionMatrix(len(classes)), {}, [], None
    write = partial(write_pictures, folder, classes, palette)
    try:
        for name, result in predict_all(paths, read, infer, write):
            if isinstance(result, UserError):
                problems.append(str(result))
                continue
            prediction, mask = result
            shares = np.bincount(prediction.ravel(), minlength=len(classes)) / prediction.size
            rows[name] = [*prediction.shape[::-1], *shares.round(6).tolist()]
            if mask is not None:
                one = ConfusionMatrix.of_image(prediction, mask, len(classes))
                matrix.add(one)
                rows[name] += [f"{one.mean_iou():.4f}", f"{one.pixel_accuracy():.4f}"]
    except (KeyboardInterrupt, UserError) as error:
        stopped = error  # the results so far are kept
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        smaller = f"--max-pixels {max(least, max_pixels // 4)}, or a smaller --image-size"
        stopped = UserError(f"the memory does not suffice for {max_pixels} pixels at a time; try {smaller}")
    if not rows:
        raise stopped or UserError(f"none of the images could be used: {problems[0]}")
    write_shares(folder / "shares.csv", rows, paths, classes, bool(score))
    if score and not stopped:
        print()
        report_masks(matrix, list(rows), classes, folder / "score.json")
    if skipped := problems + others:
        print(f"skipped {len(skipped)} files: {'; '.join(skipped[:5])}{'; ...' * (len(skipped) > 5)}")
    print(f"{'interrupted: ' if stopped else ''}{len(rows)} of {len(paths)} images; see {folder}")
    if stopped:
        raise stopped
    return folder


def trained_by_torchvision(name: str, weights: str) -> tuple[TorchvisionNetwork, dict]:
    """Return the network called `name` as torchvision trained it, and what a checkpoint would tell of it."""
    about = {"run": name, "classes": voc.CLASSES, "palette": voc.PALETTE, "image_size": None}
    return TorchvisionNetwork(len(voc.CLASSES), name, weights=weights).eval(), about


def folder_name(images: list[Path], tta: bool) -> str:
    """Return the name of the folder for the results of `images`."""
    first = images[0].stem if images[0].is_file() else short_name(str(images[0]))
    return first + f"_and_{len(images) - 1}_more" * (len(images) > 1) + "_tta" * tta


def predict_all(
    names: Collection[str], read: Callable, infer: Callable, write: Callable
) -> Iterator[tuple[str, UserError | tuple[np.ndarray, np.ndarray | None]]]:
    """Yield each name with its prediction and true mask (H, W), or with the error if the image cannot be read.

    Args:
        names: names of the images.
        read: takes a name, returns the image and its true mask or None; runs in threads, ahead of `infer`.
        infer: takes an image, returns the class of each pixel.
        write: takes name, image and prediction; runs in threads, after `infer`.
    """
    writing = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        for name, reading in tqdm(prefetch(pool, read, names), total=len(names), unit=" images", disable=None):
            try:
                image, mask = reading.result()
            except UserError as error:
                yield name, error
                continue
            prediction = infer(image)
            writing.append(pool.submit(write, name, image, prediction))
            yield name, (prediction, mask)
            if len(writing) > THREADS:
                writing.popleft().result()
        for future in writing:
            future.result()


def write_pictures(
    folder: Path, classes: list[str], palette: list, name: str, image: Image.Image, prediction: np.ndarray
) -> None:
    """Write a prediction as a palette PNG to masks/, and over the image to overlays/."""
    mask = Image.fromarray(prediction)
    mask.putpalette(np.array(palette, dtype=np.uint8).tobytes())
    for kind, picture in (("masks", mask), ("overlays", overlay(image, prediction, classes, palette))):
        with atomic(folder / kind / f"{name}.png") as temporary:
            picture.save(temporary, format="PNG", compress_level=3)  # a third of the time of 6, a tenth more bytes


def write_shares(path: Path, rows: dict[str, list], paths: dict[str, Path], classes: list[str], scored: bool) -> None:
    """Write shares.csv, and print the mean share of each class that was seen, and in how many images it is."""
    header = ["image", "width", "height", *classes, *([MIOU, PIXEL_ACCURACY] if scored else [])]
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *([name + paths[name].suffix, *row] for name, row in rows.items())])
    width = max(map(len, [*classes, "class"]))
    print(f"{'class':<{width}}  mean share  in images")
    shares = np.array([row[2 : 2 + len(classes)] for row in rows.values()])
    for name, values in zip(classes, shares.T, strict=True):
        if values.any():
            print(f"{name:<{width}}{values.mean():>12.2%}{np.count_nonzero(values):>11}")


def find_images(images: list[Path], out: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the images by name, and the names of other files; results of earlier predictions are skipped."""
    outputs = [path.resolve() for path in (Path("predictions"), out / "masks", out / "overlays")]
    paths, others = {}, []
    for given in images:
        found, rest = ([given], []) if given.is_file() else find_files(given)
        found = [path for path in found if not any(output in path.resolve().parents for output in outputs)]
        if not found:
            raise UserError(f"{given} holds {not_read(rest)}" if rest else f"{given} is missing, or holds no image")
        others += map(str, rest)
        for path in found:
            name = path.stem if path == given else name_below(given, path)
            if name in paths:
                clash = f"{paths[name]} and {path} would both be written to {name}.png"
                raise UserError(f"{clash}; rename one of them, or predict them apart")
            paths[name] = path
    return paths, others


def remove_earlier(folder: Path) -> None:
    """Remove the masks and overlays that the shares.csv of an earlier prediction lists, shares.csv and score.json."""
    if (folder / "shares.csv").is_file():
        with (folder / "shares.csv").open(newline="", encoding="utf-8") as file:
            names = [Path(row["image"]).with_suffix(".png") for row in csv.DictReader(file)]
        for path in (folder / kind / name for kind in ("masks", "overlays") for name in names):
            path.unlink(missing_ok=True)
        (folder / "shares.csv").unlink()
    (folder / "score.json").unlink(missing_ok=True)


def select_split(paths: dict[str, Path], record: Path, split: str) -> dict[str, Path]:
    """Return the images that the training had in `split`, by its `record` splits.json."""
    names = read_json(record).get(split)
    if names is None:
        raise UserError(f"--split {split} needs {record}, which the training writes; it is missing or lacks this split")
    if missing := [name for name in names if name not in paths]:
        sentence = f"{missing[0]}{more(missing)} of the {len(names)} images in {split} is not there"
        raise UserError(f"{sentence}; give the images that the model was trained on")
    return {name: paths[name] for name in names}


def find_masks(masks: Path, paths: dict[str, Path]) -> dict[str, Path]:
    """Return the true mask of each image by the image's name."""
    if len(paths) == 1 and masks.is_file():
        return dict.fromkeys(paths, masks)
    found = files_by_name(masks)
    if missing := [path for name, path in paths.items() if name not in found]:
        raise UserError(f"{missing[0]}{more(missing)} has no mask in {masks}")
    return found


def prefetch(pool: ThreadPoolExecutor, function: Callable, items: Iterable) -> Iterator[tuple[object, Future]]:
    """Yield each item with the future of `function(item)`; a few are computed ahead."""
    ahead = deque()
    for item in items:
        ahead.append((item, pool.submit(function, item)))
        if len(ahead) > THREADS:
            yield ahead.popleft()
    yield from ahead


if __name__ == "__main__":
    cli(main)
