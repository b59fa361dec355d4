"""The images that are measured on: some of VOC 2007's, or generated ones in its layout."""

import contextlib
import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from common.datasets.shapes import draw_scene
from common.datasets.voc import PALETTE
from common.run import Run

FOLDER = "VOCdevkit/VOC2007"
SPLITS = ("train", "val", "test")


@contextlib.contextmanager
def voc_part(run: Run, counts: dict[str, int]) -> Iterator[Run]:
    """Yield `run` with a small VOC 2007 below its `data_root`, and with an empty cache.

    It has the first images of the set below `run.data_root`; where that has none, generated scenes, stored as VOC's
    photographs are: JPEGs of 500x375 pixels and some 100 KB.

    Args:
        counts: how many images "train", "val" and "test" have, at most.
    """
    theirs = run.data_root.resolve() / FOLDER
    run.cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=run.cache_dir, prefix="benchmark-") as temporary:
        ours = Path(temporary, FOLDER)
        lists = ours / "ImageSets/Segmentation"
        lists.mkdir(parents=True)
        if all((theirs / "ImageSets/Segmentation" / f"{split}.txt").is_file() for split in SPLITS):
            print(f"images of {theirs}")
            for split in SPLITS:
                names = (theirs / "ImageSets/Segmentation" / f"{split}.txt").read_text().split()
                (lists / f"{split}.txt").write_text("\n".join(names[: counts[split]]) + "\n")
            for kind in ("JPEGImages", "SegmentationClass"):
                (ours / kind).symlink_to(theirs / kind, target_is_directory=True)
        else:
            print(f"generated images, as {theirs} is not there")
            write_scenes(ours, counts)
        part = copy.copy(run)
        part.data_root, part.cache_dir = Path(temporary), Path(temporary, "cache")
        yield part


def write_scenes(folder: Path, counts: dict[str, int]) -> None:
    """Write generated scenes and their lists to the VOC folder `folder`."""
    (folder / "JPEGImages").mkdir()
    (folder / "SegmentationClass").mkdir()
    index = 0
    for split, count in counts.items():
        names = [f"{index + i:06}" for i in range(count)]
        for name in names:
            image, mask = draw_scene(index, side=500)
            image.crop((0, 0, 500, 375)).save(folder / "JPEGImages" / f"{name}.jpg", quality=90)
            mask = Image.fromarray(mask[:375])
            mask.putpalette(np.array(PALETTE, dtype=np.uint8).tobytes())
            mask.save(folder / "SegmentationClass" / f"{name}.png")
            index += 1
        (folder / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
