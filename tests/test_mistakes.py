"""Mistakes that leave a training that works, only worse: wrong rates, wrong data, repeated dropout, a coarse loss."""

import importlib
import inspect
import math
from functools import partial

import pytest
import torch
from conftest import make_few, started
from test_engine import fitted
from torch import nn
from torch.nn import functional as F

import common.engine
import train_drinks
import train_pets
from common.datasets import VOID, load
from common.losses import CrossEntropy, class_weights
from common.models import BasicFCN, DilatedFCN, ResNetV2FCN, TorchvisionNetwork, UNet
from common.models.mobilenet_v1 import mobilenet_v1_layers
from common.run import Run

pytestmark = pytest.mark.usefixtures("without_pictures")

ALL = ""  # every parameter's name begins with it
# Of each script: how its rates go, and which flag, or number, is the first rate of the parameters whose names begin so.
RATES = {
    "train": ("constant", {ALL: "lr"}),
    "train_4_a": ("cosine", {ALL: "lr"}),
    "train_4_b": ("cosine", {ALL: "lr"}),
    "train_4_c": ("cosine", {ALL: "lr"}),
    "train_4_d": ("cosine", {ALL: "lr"}),
    "train_4_e": ("cosine", {ALL: "lr"}),
    "train_5_a": ("cosine", {ALL: "lr"}),
    "train_5_b": ("cosine", {"decoder.": "lr"}),
    "train_5_c": ("cosine", {ALL: "lr"}),
    "train_5_d": ("cosine", {"net.backbone.": 1e-4, "net.classifier.": "lr"}),
    "train_best": ("cosine", {"encoder.": "encoder_lr", "decoder.": "lr"}),
    "train_ade20k": ("constant", {ALL: 3e-4}),
    "train_drinks": ("cosine", {ALL: "lr"}),
    "train_voc2012": ("cosine", {"encoder.": "encoder_lr", "decoder.": "lr"}),
}
SMALL = {"image_size": 32, "stored_scale": 1.25, "batch_size": 3, "encoder": "mobilenet_v1", "levels": 2}
WEIGHTED = {"train_4_c", "train_5_a", "train_5_b", "train_5_c", "train_5_d"}


class Stage:
    """What a script gave to `fit`, and the rate of every parameter in the optimizer at each of its steps."""

    def __init__(self, model, train_loader, val_loader, criterion, optimizer):
        self.model, self.criterion, self.optimizer = model, criterion, optimizer
        self.train_loader, self.val_loader = train_loader, val_loader
        self.trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        names = {parameter: name for name, parameter in model.named_parameters()}
        self.groups = [[names[parameter] for parameter in group["params"]] for group in optimizer.param_groups]
        self.rates = {name: [] for group in self.groups for name in group}
        optimizer.register_step_pre_hook(self.note)

    def note(self, optimizer, args, kwargs) -> None:
        for names, group in zip(self.groups, optimizer.param_groups, strict=True):
            for name in names:
                self.rates[name].append(group["lr"])


@pytest.fixture
def train(monkeypatch, tmp_path):
    """A function that runs a script's main on four training scenes, and returns its stages.

    Its ImageNet weights are random ones from a file. Large networks are replaced by a small one.
    """
    make_few(monkeypatch, train=4, val=3, test=2)
    torch.save(mobilenet_v1_layers().state_dict(), tmp_path / "mobilenet_v1.pth")
    real_build = common.models.build

    def build(model: str, num_classes: int, **options) -> nn.Module:
        return real_build(model, num_classes, **options) if "encoder" in options else DilatedFCN(num_classes)

    light = {
        "build": build,
        "BasicFCN": DilatedFCN,
        "UNet": lambda classes, width: UNet(classes, 4),
        "TorchvisionNetwork": lambda classes, network, pretrained, weights: TorchvisionNetwork(classes, network, False),
        "ResNetV2FCN": partial(ResNetV2FCN, depth=11),
    }

    def train(name: str, **settings) -> list[Stage]:
        script, stages = importlib.import_module(name), []
        defaults = inspect.signature(script.main).parameters
        small = {flag: value for flag, value in SMALL.items() if flag in defaults}

        def watched(*args, original=script.fit, **options):
            stages.append(Stage(*args[:5]))
            return original(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(script, "fit", watched)
            for network in light.keys() & vars(script).keys():
                patch.setattr(script, network, light[network])
            if "encoder_weights" in defaults:
                small["encoder_weights"] = str(tmp_path / "mobilenet_v1.pth")
            run = Run(name="test", device="cpu", precision="fp32")
            script.main(dataset="shapes", **small | settings, run=run)
        return stages

    return train


def first_rate(name: str, parameter: str) -> float | None:
    """Return the rate of a script's parameter at the first step; None if it is not trained."""
    defaults = inspect.signature(importlib.import_module(name).main).parameters
    flags = [flag for prefix, flag in RATES[name][1].items() if parameter.startswith(prefix)]
    return (defaults[flags[0]].default if isinstance(flags[0], str) else flags[0]) if flags else None


def test_every_small_setting_is_a_parameter_of_some_script():
    mains = [inspect.signature(importlib.import_module(name).main) for name in RATES]
    assert SMALL.keys() <= {flag for main in mains for flag in main.parameters}


@pytest.mark.parametrize("name", RATES)
def test_every_parameter_has_its_rate_at_every_step_and_the_loss_its_weights(name, train):
    epochs = 2
    (stage,) = train(name, epochs=epochs)
    copies = 3 if len(stage.train_loader.data) < stage.train_loader.num_images else 1
    steps = epochs * len(stage.train_loader)
    assert len(stage.train_loader) == -(-4 * copies // 3)
    if RATES[name][0] == "cosine":
        parts = [(1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
        assert all(abs(group["lr"]) < 1e-9 for group in stage.optimizer.param_groups)  # after the last
    else:
        parts = [1.0] * steps
    first = {parameter: first_rate(name, parameter) for parameter, _ in stage.model.named_parameters()}
    trained = {parameter for parameter, rate in first.items() if rate is not None}
    assert stage.trained == trained <= stage.rates.keys()
    for parameter in trained:
        assert stage.rates[parameter] == pytest.approx([first[parameter] * part for part in parts], rel=1e-6), parameter

    data, others = stage.train_loader.data, load("shapes", 32, started(name="other"))[1:]
    assert (data.split, stage.val_loader.data.split) == ("train", "val")
    larger = "stored_scale" in inspect.signature(importlib.import_module(name).main).parameters
    assert [part.images.shape[2] for part in (data, stage.val_loader.data)] == [40 if larger else 32, 32]
    assert not stage.val_loader.shuffle and not stage.val_loader.augment
    weight = getattr(stage.criterion, "weight", None)
    assert (weight is not None) == (name in WEIGHTED)
    if name in WEIGHTED:
        assert torch.equal(weight, class_weights(data))
        assert not any(torch.allclose(weight, class_weights(other), rtol=0.01) for other in others)


def test_the_rate_that_falls_by_the_epoch_falls_by_the_epoch(train, monkeypatch):
    monkeypatch.setattr(train_drinks, "rate", lambda epoch: 0.5**epoch)
    (stage,) = train("train_drinks", epochs=3, schedule="steps")
    assert len(stage.train_loader) == 2
    rates = [1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4]
    assert all(found == pytest.approx(rates) for found in stage.rates.values())


def test_rates_fall_where_validation_gets_no_better(train, monkeypatch):
    scores, evaluate = iter([0, 1, 2, 3, 3, 3, 3]), common.engine.evaluate

    def scripted(*args):
        loss, matrix = evaluate(*args)
        matrix.counts[:-1] = 1 + next(scores, 0) * torch.eye(matrix.counts.shape[1], dtype=torch.int64)
        return loss, matrix

    monkeypatch.setattr(common.engine, "evaluate", scripted)
    (stage, *_) = train("train_pets", model="fcn8s", epochs=6, fine_tune_epochs=0, plateau=1)
    lr = inspect.signature(train_pets.main).parameters["lr"].default
    assert all(name.startswith("decoder.") for name in stage.rates) and len(stage.train_loader) == 2
    for rates in stage.rates.values():  # the rate of the fourth epoch was chosen after the third, the best
        assert rates == pytest.approx([lr * part for part in (1, 1, 1, 1, 1 / 3, 1 / 9) for _ in range(2)])


def test_dropout_differs_in_every_batch_and_depends_on_the_seed_not_on_earlier_draws(few_shapes):
    def drawn(name: str, seed: int, more: int) -> list[tuple]:
        run, model, found = started(seed=seed, name=name), DilatedFCN(6), []

        def draw(*_):
            if model.training:
                found.append(tuple(F.dropout(torch.ones(64)).tolist()))
                torch.rand(more)

        model.register_forward_hook(draw)
        fitted((run, *load("shapes", 32, run)), model, CrossEntropy(), epochs=2, batch_size=8)
        return found

    one = drawn("one", seed=0, more=0)
    assert one == drawn("again", seed=0, more=1) and len({*one, *drawn("other", seed=1, more=0)}) == 12


def test_the_loss_of_bf16_logits_is_computed_in_fp32(few_shapes):
    run, model, given, taken = started(precision="bf16"), BasicFCN(6), [], []

    def criterion(logits, masks):
        taken.append(logits.dtype)
        return F.cross_entropy(logits, masks, ignore_index=VOID)

    model.register_forward_hook(lambda module, images, logits: given.append(logits.dtype))
    fitted((run, *load("shapes", 32, run)), model, criterion, batch_size=8)
    assert len(given) == len(taken) == 9 and {*given} == {torch.bfloat16} and {*taken} == {torch.float32}
