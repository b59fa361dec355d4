import socket
import time
import urllib.request
from pathlib import Path

import pytest
import torch
from conftest import SHARED
from torch import nn

from common.models import weights as weights_module
from common.models.encoders import ENCODERS, build_encoder, freeze
from common.models.layers import IMAGENET_MEAN, IMAGENET_STD
from common.system.errors import UserError

MOBILENET = SHARED / "weights" / "mobilenet_v1_1.0_224_imagenet_no_pw13.pth"
needs_mobilenet = pytest.mark.skipif(not MOBILENET.exists(), reason=f"needs {MOBILENET}")
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
    prefix = "features." if name in ("vgg16", "mobilenet_v2") else ""
    contents = {prefix + key: value for key, value in ENCODERS[name]().network.state_dict().items()}
    classifier = {"vgg16": "classifier.6.", "mobilenet_v2": "classifier.1."}.get(name, "fc.")
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


@pytest.mark.parametrize("name", ENCODERS)
def test_a_local_file_is_loaded_with_or_without_a_wrapper(name, tmp_path, offline):
    contents = official(name)
    for whole in (contents, {"epoch": 3, "state_dict": contents}):
        torch.save(whole, tmp_path / "w.pth")
        encoder = build_encoder(name, weights=str(tmp_path / "w.pth"))
        first, value = next(iter(contents.items()))
        assert torch.equal(encoder.network.get_parameter(first.removeprefix("features.")), value)


def test_the_weights_file_is_found_in_a_folder_and_else_downloaded(tmp_path, offline):
    contents = official("mobilenet_v1")
    torch.save(contents, tmp_path / "mobilenet_v1_1.0_224.pth")
    torch.save(official("mobilenet_v2"), tmp_path / "mobilenet_v2-7ebf99e0.pth")
    encoder = build_encoder("mobilenet_v1", weights=tmp_path)
    assert torch.equal(encoder.network.conv1.weight, contents["conv1.weight"])
    with pytest.raises(UserError, match=r"holds no resnet18\*\.pth, and resnet18-.*cannot be downloaded"):
        build_encoder("resnet18", weights=tmp_path)
    torch.save(contents, tmp_path / "mobilenet_v1_other.pth")
    with pytest.raises(UserError, match=r"should hold one file called mobilenet_v1\*\.pth; there: mobilenet_v1_1\.0"):
        build_encoder("mobilenet_v1", weights=tmp_path)


def test_mobilenet_v1_sees_images_from_minus_one_to_one():
    encoder = build_encoder("mobilenet_v1", pretrained=False)
    images = torch.tensor([0.0, 127.5, 255.0]).view(3, 1, 1, 1).expand(3, 3, 32, 32) / 255
    assert torch.equal(encoder.normalize(images)[:, 0, 0, 0], torch.tensor([-1.0, 0.0, 1.0]))


def test_mobilenet_v1_pads_a_convolution_of_stride_two_right_and_below_only():
    conv = build_encoder("mobilenet_v1", pretrained=False).network.conv1
    nn.init.ones_(conv.weight)
    image = torch.zeros(1, 3, 8, 8)
    image[0, 0, 2, 2] = 1  # in the windows from 0 to 2 and from 2 to 4; padded to the left, only in that from 1 to 3
    hit = conv(image)[0, 0]
    assert hit.shape == (4, 4) and hit.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


@needs_mobilenet
def test_the_real_weights_of_mobilenet_v1_load():
    encoder = build_encoder("mobilenet_v1", weights=MOBILENET)
    real = torch.load(MOBILENET, weights_only=True)
    assert torch.equal(encoder.network.pw12.weight, real["pw12.weight"])
    assert torch.equal(encoder.network.pw12_bn.running_var, real["pw12_bn.running_var"])


class Intruder:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return open, ("executed", "w")


def test_pickled_objects_are_refused_and_not_executed():
    torch.save(official("mobilenet_v1") | {"extra": Intruder()}, "w.pth")
    with pytest.raises(UserError, match=r"w\.pth holds more than plain values"):
        build_encoder("mobilenet_v1", weights="w.pth")
    assert not Path("executed").exists()


def test_a_file_that_is_missing_cut_short_or_no_table_of_weights_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    with pytest.raises(UserError, match="is missing"):
        build_encoder("mobilenet_v1", weights=path)
    torch.save({"conv1.weight": torch.zeros(300)}, path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(UserError, match=r"w\.pth"):
        build_encoder("mobilenet_v1", weights=path)
    torch.save({"epoch": 3}, path)  # a checkpoint of something else
    with pytest.raises(UserError, match=r"w\.pth holds no table of named tensors"):
        build_encoder("mobilenet_v1", weights=path)


def test_weights_of_another_network_or_with_a_tensor_too_few_or_too_many_are_refused_by_name(tmp_path):
    path, contents = tmp_path / "w.pth", official("mobilenet_v1")
    without = {key: value for key, value in contents.items() if key != "pw7_bn.running_var"}
    for wrong, message in (
        (official("resnet18"), "does not hold weights of mobilenet_v1 "),
        (without, r"\(Missing key\(s\) in state_dict: \"pw7_bn\.running_var\""),
        (
            contents | {"conv1.weight": torch.zeros(32, 1, 3, 3)},
            r"\(size mismatch for conv1\.weight: .*\[32, 1, 3, 3\]",
        ),
        (contents | {"more.weight": torch.zeros(2)}, r"\(Unexpected key\(s\) in state_dict: \"more\.weight\""),
    ):
        torch.save(wrong, path)
        with pytest.raises(UserError, match=message):
            build_encoder("mobilenet_v1", weights=path)


def test_without_a_network_the_file_the_folder_and_the_flags_are_named(offline):
    start = time.perf_counter()
    with pytest.raises(UserError) as caught:
        build_encoder("resnet18")
    assert time.perf_counter() - start < 5
    for words in ("resnet18-f37072fd.pth", str(offline), "--no-pretrained", "--encoder-weights"):
        assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_server_that_says_nothing_is_given_up(offline, monkeypatch):
    monkeypatch.setattr(weights_module, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.perf_counter()
        with pytest.raises(UserError, match="timed out"):
            build_encoder("resnet18")
    assert time.perf_counter() - start < 2
    assert socket.getdefaulttimeout() is None


def test_a_file_in_the_cache_of_torch_hub_needs_no_network(offline):
    offline.mkdir(parents=True)
    contents = official("resnet18")
    torch.save(contents, offline / "resnet18-f37072fd.pth")
    assert torch.equal(build_encoder("resnet18").network.conv1.weight, contents["conv1.weight"])


def test_weights_that_nobody_has_or_wants_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"torchvision has no weights of mobilenet_v1.*--encoder-weights.*--no-pretr"):
        build_encoder("mobilenet_v1")
    with pytest.raises(UserError, match="exclude each other"):
        build_encoder("resnet18", pretrained=False, weights=tmp_path / "w.pth")


@pytest.mark.parametrize("name", ENCODERS)
def test_a_frozen_encoder_stays_the_same_when_its_parent_trains(name):
    encoder = build_encoder(name, pretrained=False)
    model = nn.ModuleDict({"encoder": encoder, "head": nn.BatchNorm2d(3)})
    freeze(encoder)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    for _ in range(2):
        model.train()
        features = encoder(torch.rand(2, 3, 32, 32))
        model.eval()
    model.train()
    assert model["head"].training
    assert not any(module.training for module in encoder.modules())
    assert not any(x.requires_grad for x in features)  # so nothing is kept for a backward pass
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_a_frozen_encoder_can_be_trained_again():
    encoder = build_encoder("mobilenet_v1", pretrained=False)
    freeze(encoder)
    freeze(encoder, False)
    encoder(torch.rand(2, 3, 64, 64))[-1].sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    assert encoder.network.bn1.running_mean.abs().sum() > 0
