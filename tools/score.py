"""How good are masks that some program has predicted?

    python -m tools.score their/masks true/masks                             # values 0, 1, 2, ... and 255 for void
    python -m tools.score their/masks true/masks --classes classes.txt --json scores.json
    python -m tools.score predictions/train-photos/images/masks hidden --classes photos/classes.txt --numbers

Prints every score (docs/scores.md) at the masks' own size, its majority-class baseline ("floor"), and the IoU of each
class. Each true mask needs a prediction with the same name; the suffix may differ. classes.txt gives the meaning
of the values and colours in the true masks (common/datasets/folder.py has the rules). Predictions are read in the same
way; with --numbers they hold class numbers.

The exit status is 1 if a prediction is missing, has another size or holds a value that is not a class.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from common.cli import cli
from common.datasets.mask_classes import BINARY, interpret, read_classes
from common.datasets.mask_contents import scan
from common.datasets.reading import NO_CLASS, Problem, files_by_name, read_mask
from common.labels import VOID, LabelMap
from common.metrics import ConfusionMatrix
from common.reporting.scores import report_masks
from common.system.device import keep_freed_memory
from common.system.errors import UserError


def main(
    predicted: Path,  # folder of masks to be scored
    truth: Path,  # folder of the true masks
    classes: str = "",  # classes.txt of the true masks; by default the one beside their folder, if it is there
    numbers: bool = False,  # predictions hold 0, 1, 2, ... in the order of classes, whatever the true masks hold
    json: str = "",  # file for the scores, with the mIoU of each mask
    cache_dir: Path = Path(".cache"),  # folder for cached contents of the masks
):
    """Match, read, score and print; return what --json writes."""
    file = Path(classes or truth.parent / "classes.txt")
    if classes and not file.is_file():
        raise UserError(f"--classes {file} is missing")
    masks, predictions = files_by_name(truth), files_by_name(predicted)
    if missing := [path for name, path in masks.items() if name not in predictions]:
        there = f"{predicted} has {len(predictions)} predictions, the first is {next(iter(predictions.values()))}"
        raise UserError(f"{len(missing)} of {len(masks)} masks have no prediction; first {missing[0]}; {there}")
    if extra := [path for name, path in predictions.items() if name not in masks]:
        print(f"{len(extra)} predictions have no mask in {truth} and are left out; first {extra[0]}")
    held, problems, _ = scan([*masks.items()], cache_dir, progress=True)
    names, palette, true_map, notes = interpret(held, read_classes(file), file.parent, problems)
    if problems:
        raise problems[0]
    for note in notes:
        print(note)
    predicted_map = LabelMap.plain(palette) if numbers else true_map
    if len(names) == 2 and predicted_map.numbers == {0: 0, 1: 1, VOID: VOID}:
        held = scan([*predictions.items()], cache_dir, progress=True).held
        if {h.color for h in held} == BINARY.keys():
            print("the predictions hold 0 and 255 alone, the true masks 0 and 1: 255 is taken for 1")
            predicted_map = LabelMap({0: 0, VOID: 1}, BINARY)

    def compare(name: str) -> ConfusionMatrix:
        target = read_mask(masks[name], true_map)
        prediction = read_prediction(predictions[name], predicted_map, numbers)
        if prediction.shape != target.shape:
            (height, width), (true_height, true_width) = prediction.shape, target.shape
            sizes = f"is {width}x{height} pixels but {masks[name]} is {true_width}x{true_height}"
            raise UserError(f"{predictions[name]} {sizes}; predict at the image's own size")
        return ConfusionMatrix.of_image(prediction, target, len(names))

    torch.set_num_threads(1)  # of each of the threads below
    keep_freed_memory()
    total = ConfusionMatrix(len(names))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for matrix in tqdm(pool.map(compare, masks), "scoring", len(masks), unit="mask", disable=None, leave=False):
            total.add(matrix)
    return report_masks(total, list(masks), names, json)


def read_prediction(path: Path, label_map: LabelMap, numbers: bool) -> np.ndarray:
    """Return the mask at `path` as class numbers (H, W) uint8; raise UserError for values that are not a class."""
    try:
        prediction = read_mask(path, label_map)
    except Problem as problem:
        if problem.kind != NO_CLASS:
            raise
        others = "" if numbers else ", and --numbers reads predictions as class numbers"
        raise UserError(f"{problem}; --classes names all classes{others}") from None
    if (prediction == VOID).any():
        raise UserError(f"{path} has void pixels; a prediction names a class for every pixel")
    return prediction


if __name__ == "__main__":
    cli(main)
