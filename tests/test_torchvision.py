"""common/models/torchvision_network.py and tools.predict --model, on weights with the structure of torchvision's."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model, get_model_weights

from common.datasets import voc
from common.datasets.shapes import draw_scene
from common.models import Network, TorchvisionNetwork
from common.models.encoders import build_encoder
from common.models.weights import read_weights
from common.system.errors import UserError
from tools.predict import main

NETWORKS = get_args(Network)


def write_weights(network, folder):
    """Write random weights as torchvision's file, under torchvision's name; return its path."""
    torch.manual_seed(0)
    auxiliary = {} if "lraspp" in network else {"aux_loss": True}  # as in torchvision's files
    model = get_model(network, weights=None, weights_backbone=None, num_classes=21, **auxiliary)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
        elif isinstance(layer, torch.nn.Conv2d) and layer.out_channels == 21:
            torch.nn.init.normal_(layer.weight)  # else, the biases alone decide the class
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64))  # sets the running averages
    path = folder / get_model_weights(network).DEFAULT.url.rpartition("/")[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The folder of torch.hub's downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    return tmp_path / "hub/hub/checkpoints"


@pytest.mark.parametrize("network", NETWORKS)
def test_the_weights_become_the_network_that_torchvision_makes_of_them(network, hub):
    path = write_weights(network, hub)
    theirs = get_model(network, weights="DEFAULT").eval()  # finds the file in torch.hub's folder
    images, metadata = torch.rand(1, 3, 64, 96), get_model_weights(network).DEFAULT.meta
    assert [name.replace("__background__", "background") for name in metadata["categories"]] == list(voc.CLASSES)
    for ours in (TorchvisionNetwork(21, network).eval(), TorchvisionNetwork(21, network, weights=path).eval()):
        expected = {key: value for key, value in theirs.state_dict().items() if not key.startswith("aux_classifier.")}
        found = ours.net.state_dict()
        assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)
        with torch.no_grad():
            assert torch.allclose(ours(images), theirs(ours.normalize(images))["out"], atol=1e-5)


@pytest.mark.parametrize("network", NETWORKS[:2])
def test_with_other_classes_only_the_last_layer_is_new(network, tmp_path):
    path = write_weights(network, tmp_path)
    trained, model = read_weights(path), TorchvisionNetwork(4, network, weights=path)
    new = [key for key, value in model.net.state_dict().items() if not torch.equal(value, trained[key])]
    assert {key.removesuffix(".weight").removesuffix(".bias") for key in new} == {
        "lraspp_mobilenet_v3_large": {"classifier.low_classifier", "classifier.high_classifier"},
        "deeplabv3_mobilenet_v3_large": {"classifier.4"},
    }[network]
    assert model(torch.rand(2, 3, 40, 50)).shape == (2, 4, 40, 50)


def test_a_photograph_gets_vocs_classes_as_with_torchvisions_own_steps(hub, tmp_path):
    write_weights(NETWORKS[0], hub)
    draw_scene(1, 300)[0].crop((0, 0, 300, 200)).save("photo.png")
    out = main([Path("photo.png")], model=NETWORKS[0], device="cpu", precision="fp32")
    weights = get_model_weights(NETWORKS[0]).DEFAULT
    with Image.open(out / "masks/photo.png") as mask, Image.open("photo.png") as photo, torch.no_grad():
        assert mask.getpalette()[:63] == [value for color in voc.PALETTE for value in color]
        logits = get_model(NETWORKS[0], weights=weights).eval()(weights.transforms()(photo)[None])["out"]
        expected = torch.nn.functional.interpolate(logits, (200, 300), mode="bilinear").argmax(1)[0].numpy()
        assert (np.asarray(mask) == expected).mean() > 0.99 and len(np.unique(expected)) > 3


def test_weights_of_another_network_and_flags_without_sense_are_refused(hub, tmp_path):
    path = write_weights(NETWORKS[1], tmp_path)
    with pytest.raises(UserError, match=r"does not hold weights of lraspp_mobilenet_v3_large \(Missing key"):
        main([Path("photo.png")], model=NETWORKS[0], weights=str(path))
    for more in ({"checkpoint": "best_x.pt"}, {"split": "test"}):
        with pytest.raises(UserError, match="it goes without --checkpoint and --split"):
            main([Path("photo.png")], model=NETWORKS[0], **more)
    with pytest.raises(UserError, match="--weights holds the weights of a --model"):
        main([Path("photo.png")], weights=str(path))
    with pytest.raises(UserError, match="--weights and --no-pretrained exclude each other"):
        TorchvisionNetwork(4, pretrained=False, weights=path)


BUILDS = [lambda: TorchvisionNetwork(4, pretrained=False), lambda: build_encoder("mobilenet_v3_large", False)]


@pytest.mark.parametrize("build", BUILDS)
def test_running_averages_follow_a_training_of_few_steps(build):
    model = build()
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    layer = next(module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    with torch.no_grad():
        for _ in range(40):
            model.train()(images)
        layer.register_forward_hook(lambda _, x, out: outputs.append(out))
        outputs = []
        model.train()(images)
        model.eval()(images)
    assert (outputs[0] - outputs[1]).std() < 0.1 * outputs[0].std()
