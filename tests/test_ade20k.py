from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import started, write_ade20k
from PIL import Image

from common.datasets import VOID, load
from common.datasets.ade20k import CLASSES, PALETTE, ade20k, ade20k_other
from common.labels import VOID_COLOR
from common.system.errors import UserError

FIRST = ("images/training/ADE_train_00000001.jpg", "annotations/training/ADE_train_00000001.png")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A small ADE20K."""
    return write_ade20k(tmp_path / "data", {"training": 40, "validation": 9})


def load_ade(folder: Path, dataset: str = "ade20k", size: int = 32):
    return load(dataset, size, started(data_root=folder.parent))


def test_there_are_150_classes_each_with_a_name_and_a_colour_of_its_own():
    assert len(CLASSES) == len(set(CLASSES)) == 150
    assert len(PALETTE) == len(set(PALETTE)) == 151 and VOID_COLOR not in PALETTE
    assert (CLASSES[0], CLASSES[12], CLASSES[20], CLASSES[149]) == ("wall", "person", "car", "flag")


def test_labels_1_to_150_become_0_to_149_and_label_0_becomes_void(folder):
    train, _, _ = load_ade(folder)
    assert train.num_classes == 150 and train.classes[0] == "wall"
    for index in range(len(train)):
        path = folder / "annotations" / "training" / f"{train.names[index]}.png"
        labels = torch.from_numpy(np.array(Image.open(path))).long()
        assert torch.equal(train.masks[index].long(), torch.where(labels == 0, VOID, labels - 1))
    assert set(train.masks.unique().tolist()) == {*range(150), VOID}
    assert train.palette[11] == PALETTE[12]


def test_other_can_be_a_class_of_its_own(folder):
    train, _, _ = load_ade(folder, "ade20k_other")
    assert train.num_classes == 151 and train.classes[:2] == ("other", "wall") and train.palette[12] == PALETTE[12]
    path = folder / "annotations" / "training" / f"{train.names[5]}.png"
    assert torch.equal(train.masks[5], torch.from_numpy(np.array(Image.open(path))))
    assert set(train.masks.unique().tolist()) == set(range(151))


@pytest.mark.parametrize("source", [ade20k, ade20k_other])
def test_a_seeded_tenth_of_training_validates_and_the_validation_split_is_the_test(folder, source):
    splits = source(folder.parent).splits
    names = {split: [sample[0] for sample in samples] for split, samples in splits.items()}
    assert (len(names["train"]), len(names["val"]), len(names["test"])) == (36, 4, 9)
    assert sorted(names["train"] + names["val"]) == [f"ADE_train_{i:08}" for i in range(1, 41)]
    assert names["test"] == [f"ADE_val_{i:08}" for i in range(1, 10)]
    assert source(folder.parent).splits == splits == ade20k(folder.parent).splits


PROBLEMS = {
    "image without annotation": (
        lambda f: [(f / FIRST[1].replace("1.png", f"{i}.png")).unlink() for i in (1, 2, 3)],
        r"images/training/ADE_train_00000001\.jpg \(and 2 more\) has no counterpart in \S+annotations/training;",
    ),
    "value 151": (
        lambda f: Image.new("L", (32, 32), 151).save(f / FIRST[1]),
        r"ADE_train_00000001\.png holds the value 151; expected 0\.\.150$",
    ),
    "no data": (lambda f: f.rename(f.parent / "elsewhere"), r"download\.py ade20k.*--dataset shapes"),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_problem_with_the_files_is_named_in_one_sentence(folder, problem):
    damage, message = PROBLEMS[problem]
    damage(folder)
    with pytest.raises(UserError, match=message) as error:
        load_ade(folder)
    assert "\n" not in str(error.value)
