"""Oxford-IIIT Pet in its official layout: cats and dogs, labelled with trimaps (pet, background, border).

Parkhi, Vedaldi, Zisserman & Jawahar, Cats and Dogs, CVPR 2012.
"""

from pathlib import Path

from common.datasets.reading import missing
from common.datasets.segmentation_set import DatasetSpec, split_off
from common.labels import LabelMap
from common.system.errors import UserError

CLASSES = ("pet", "background", "border")  # 1, 2, 3 in a trimap; border pixels are undecided
PALETTE = ((230, 75, 60), (0, 0, 0), (245, 190, 40))
LABEL_MAP = LabelMap({1: 0, 2: 1, 3: 2})


def pets(data_root: Path) -> DatasetSpec:
    """Return Oxford-IIIT Pet: a tenth of the 3680 images in "trainval" for validation, the 3669 in "test" for the test.

    In the official archive, a dozen files named .jpg are GIF or PNG images, some grey or transparent, and two JPEGs
    have stray bytes. Files are therefore read by their contents, not by their names.
    """
    folder = data_root / "oxford-iiit-pet"
    train, val = split_off(_samples(folder, "trainval"))
    splits = {"train": train, "val": val, "test": _samples(folder, "test")}
    return DatasetSpec(CLASSES, PALETTE, splits, LABEL_MAP)


def _samples(folder: Path, split: str) -> list[tuple[str, Path, Path]]:
    """Return (name, image, trimap) for each line of the official list of `split`; a line has a name and 3 numbers."""
    listing = folder / "annotations" / f"{split}.txt"
    if not listing.is_file():
        raise missing(listing, "pets", "oxford-iiit-pet")
    lines = listing.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    names = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    if not names or not "".join(names).isprintable():
        raise UserError(f"{listing} should have an image name and three numbers per line; it is empty or another file")
    return [(name, folder / f"images/{name}.jpg", folder / f"annotations/trimaps/{name}.png") for name in names]
