"""ADE20K as in the SceneParsing benchmark of 2016: photographs of places, with 150 classes.

Zhou et al., Scene Parsing through ADE20K Dataset, CVPR 2017.
"""

from pathlib import Path

from common.datasets.reading import missing
from common.datasets.segmentation_set import DatasetSpec, split_off
from common.labels import VOID, LabelMap, voc_palette
from common.system.errors import UserError, more

# Labels 1 to 150; objectInfo150.txt has several names for each, these are the first ones.
CLASSES = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet", "sidewalk",
    "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water", "painting", "sofa",
    "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp",
    "bathtub", "railing", "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter", "sand",
    "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs", "runway", "case", "pool table",
    "pillow", "screen door", "stairway", "river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower",
    "book", "hill", "bench", "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat", "bar",
    "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight",
    "booth", "television receiver", "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator",
    "ottoman", "bottle", "buffet", "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer",
    "plaything", "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven",
    "ball", "food", "step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher",
    "screen", "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier",
    "crt screen", "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip
PALETTE = voc_palette(1 + len(CLASSES))  # for the labels 0 to 150
LABELS = range(1 + len(CLASSES))
WITHOUT_OTHER = LabelMap({label: label - 1 if label else VOID for label in LABELS})
WITH_OTHER = LabelMap({label: label for label in LABELS})


def ade20k(data_root: Path) -> DatasetSpec:
    """Return ADE20K with 150 classes: labels 1 to 150 become 0 to 149; label 0, everything else, becomes void.

    A tenth of the 20,210 training images is used for validation. The 2,000 validation images are the test set, because
    the labels of the official test set are not public.

    Raises:
        UserError: a missing or empty folder, an image without annotation, or an annotation without image.
    """
    return _spec(data_root, CLASSES, PALETTE[1:], WITHOUT_OTHER)


def ade20k_other(data_root: Path) -> DatasetSpec:
    """Return ADE20K with 151 classes: as `ade20k`, but with label 0 as the class "other"."""
    return _spec(data_root, ("other", *CLASSES), PALETTE, WITH_OTHER)


def _spec(data_root: Path, classes: tuple, palette: tuple, label_map: LabelMap) -> DatasetSpec:
    folder = data_root / "ADEChallengeData2016"
    train, val = split_off(_samples(folder, "training"))
    splits = {"train": train, "val": val, "test": _samples(folder, "validation")}
    return DatasetSpec(classes, palette, splits, label_map)


def _samples(folder: Path, split: str) -> list[tuple[str, Path, Path]]:
    """Return (name, image, annotation) for each pair of files of `split`, sorted by name."""
    found = {}
    for kind, suffix in (("images", "jpg"), ("annotations", "png")):
        path = folder / kind / split
        if not path.is_dir():
            raise missing(path, "ade20k", "ADEChallengeData2016")
        found[kind] = {file.stem: file for file in path.glob(f"[!.]*.{suffix}")}
    images, annotations = found.values()
    if alone := sorted(images.keys() ^ annotations.keys()):
        path = images.get(alone[0]) or annotations[alone[0]]
        lacking = "annotations" if alone[0] in images else "images"
        raise UserError(
            f"{path}{more(alone)} has no counterpart in {folder / lacking / split}; "
            "delete the file, or get the set again with `python download.py ade20k`"
        )
    if not images:
        raise missing(folder / "images" / split / "*.jpg", "ade20k", "ADEChallengeData2016")
    return [(name, images[name], annotations[name]) for name in sorted(images)]
