import urllib.request

import pytest
import torch
from torch import nn

from common.models.encoders import ENCODERS, build_encoder, freeze
from common.models.layers import IMAGENET_MEAN, IMAGENET_STD
from common.system.errors import UserError

STRIDES = (2, 4, 8, 16, 32)
FROM_TORCHVISION = [name for name in ENCODERS if name != "mobilenet_v1"]


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty torch.hub cache, and a proxy that refuses every connection."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    urllib.request.install_opener(None)  # it remembers the proxy of its first use
    yield tmp_path / "torch" / "hub" / "checkpoints"
    urllib.request.install_opener(None)


def official(name: str) -> dict[str, torch.Tensor]:
    """What an official weights file of the network holds, with random numbers in it."""
    encoder = ENCODERS[name]()
    prefix = "features." if "classifier." in encoder.unused else ""
    contents = {prefix + key: value for key, value in encoder.network.state_dict().items()}
    classifier = "classifier.1." if prefix else "fc."
    return contents | {classifier + "weight": torch.zeros(10, 3), classifier + "bias": torch.zeros(10)}


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_gives_five_maps_each_half_the_one_before(name):
    encoder = build_encoder(name, pretrained=False).eval()
    for height, width, padded in ((64, 96, (64, 96)), (37, 53, (64, 64)), (1, 1, (32, 32))):
        with torch.no_grad():
            features = encoder(torch.rand(2, 3, height, width))
        expected = [(2, c, padded[0] // s, padded[1] // s) for c, s in zip(encoder.channels, STRIDES, strict=True)]
        assert [tuple(x.shape) for x in features] == expected


@pytest.mark.parametrize("name", FROM_TORCHVISION)
def test_the_parameters_have_torchvisions_names_and_shapes(name):
    import torchvision.models

    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)().state_dict()
    encoder = ENCODERS[name]()
    theirs = {k.removeprefix("features."): v.shape for k, v in theirs.items() if not k.startswith(encoder.unused)}
    assert theirs == {key: value.shape for key, value in encoder.network.state_dict().items()}


def test_a_file_of_torchvision_gives_torchvisions_features(tmp_path):
    import torchvision.models

    theirs = torchvision.models.resnet18().eval()
    old = {key: value for key, value in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "resnet18.pth")
    ours = build_encoder("resnet18", weights=tmp_path / "resnet18.pth").eval()
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        pooled = theirs.fc(ours(images)[-1].mean((2, 3)))
        assert torch.allclose(pooled, theirs((images - mean) / std), atol=1e-4)


FILES = [*((name, False) for name in ENCODERS), ("mobilenet_v1", True), ("mobilenet_v2", True)]


@pytest.mark.parametrize(("name", "wrapped"), FILES)
def test_a_local_file_is_loaded_with_or_without_a_wrapper(name, wrapped, tmp_path, offline):
    contents = official(name)
    torch.save({"epoch": 3, "state_dict": contents} if wrapped else contents, tmp_path / "w.pth")
    encoder = build_encoder(name, weights=str(tmp_path / "w.pth"))
    first, value = next(iter(contents.items()))
    assert torch.equal(encoder.network.get_parameter(first.removeprefix("features.")), value)


def test_the_weights_file_is_found_in_a_folder_or_in_torch_hubs_cache_and_else_downloaded(tmp_path, offline):
    contents = official("mobilenet_v1")
    torch.save(contents, tmp_path / "mobilenet_v1_1.0_224.pth")
    torch.save(official("mobilenet_v2"), tmp_path / "mobilenet_v2-7ebf99e0.pth")
    encoder = build_encoder("mobilenet_v1", weights=tmp_path)
    assert torch.equal(encoder.network.conv1.weight, contents["conv1.weight"])
    with pytest.raises(UserError, match=r"holds no resnet18\*\.pth, and resnet18-.*cannot be downloaded"):
        build_encoder("resnet18", weights=tmp_path)
    contents = official("resnet18")
    torch.save(contents, offline / "resnet18-f37072fd.pth")
    assert torch.equal(build_encoder("resnet18").network.conv1.weight, contents["conv1.weight"])
    torch.save({}, tmp_path / "resnet18_bn-0.pth")  # another network's, as vgg16_bn-*.pth beside vgg16-*.pth
    torch.save(contents, tmp_path / "resnet18-f37072fd.pth")
    assert torch.equal(build_encoder("resnet18", weights=tmp_path).network.conv1.weight, contents["conv1.weight"])
    torch.save(contents, tmp_path / "mobilenet_v1_other.pth")
    with pytest.raises(UserError, match=r"should hold one file called mobilenet_v1\*\.pth; there: mobilenet_v1_1\.0"):
        build_encoder("mobilenet_v1", weights=tmp_path)


def test_weights_that_are_missing_or_of_something_else_are_refused_in_a_sentence(tmp_path):
    path = tmp_path / "w.pth"
    with pytest.raises(UserError, match=r"torchvision has no weights of mobilenet_v1.*--encoder-weights.*--no-pretr"):
        build_encoder("mobilenet_v1")
    with pytest.raises(UserError, match="exclude each other"):
        build_encoder("resnet18", pretrained=False, weights=path)
    with pytest.raises(UserError, match="is missing"):
        build_encoder("mobilenet_v1", weights=path)
    of_another_width = official("mobilenet_v1") | {"conv1.weight": torch.zeros(32, 1, 3, 3)}
    for wrong, message in (
        ({"epoch": 3}, r"w\.pth is not a dict of named tensors"),  # a checkpoint of something else
        (official("resnet18"), r"does not hold weights of mobilenet_v1 \(Missing key"),
        (of_another_width, r"\(size mismatch for conv1\.weight: .*\[32, 1, 3, 3\]"),
    ):
        torch.save(wrong, path)
        with pytest.raises(UserError, match=message):
            build_encoder("mobilenet_v1", weights=path)


def test_without_a_network_the_file_the_folder_and_the_flags_are_named(offline):
    with pytest.raises(UserError) as caught:
        build_encoder("resnet18")
    for words in ("resnet18-f37072fd.pth", str(offline), "--no-pretrained", "--encoder-weights"):
        assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_frozen_encoder_stays_the_same_when_its_parent_trains_until_it_is_freed(name):
    encoder = build_encoder(name, pretrained=False)
    model = nn.ModuleDict({"encoder": encoder, "head": nn.BatchNorm2d(3)})
    freeze(encoder)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    model.train()
    features = encoder(torch.rand(2, 3, 32, 32))
    assert model["head"].training and not any(module.training for module in encoder.modules())
    assert not any(x.requires_grad for x in features)  # so nothing is kept for a backward pass
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    freeze(encoder, False)
    encoder(torch.rand(2, 3, 64, 64))[-1].sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.running_mean.abs().sum() > 0 for norm in norms)
