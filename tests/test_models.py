import subprocess
from collections import Counter
from copy import deepcopy
from functools import cache, partial
from types import SimpleNamespace

import pytest
import torch
from conftest import REPOSITORY
from torch import nn
from torchvision.ops import SqueezeExcitation

from common.models import MODELS, ASPPUNet, DeepLabV3, FCN8s, SegNet, count_parameters, name_of
from common.models.deeplabv3 import ASPP, dilations_for
from common.models.encoders import ENCODERS, build_encoder, dilate
from common.models.fcn8s import learned_upsample2x
from common.models.layers import IMAGENET_MEAN, upsample
from common.models.pspnet import PyramidPooling
from common.models.segnet import Unpooling
from common.system.errors import UserError

# What a script may build, at VOC's 21 classes, and how many parameters it has: all of them, and those it trains.
RESNET = {"encoder": "resnet18", "pretrained": False}
CASES = {
    "ade_unet": ({}, 34_514_645, 34_514_645),
    "basic_fcn": ({}, 5_493_645, 5_493_645),
    "dilated_fcn": ({}, 1_332_373, 1_332_373),
    "fast_unet": ({}, 353_717, 353_717),
    "fcn_vgg16": ({"pretrained": False}, 15_022_863, 15_022_863),
    "unet": ({}, 31_038_933, 31_038_933),
    "resnet_v2_fcn": ({}, 15_241_333, 15_241_333),
    "encoder_fcn": (RESNET | {"freeze_encoder": True}, 13_944_213, 2_767_701),
    "encoder_unet": (RESNET, 14_321_781, 14_321_781),
    "fcn8s": (RESNET, 11_203_329, 11_203_329),
    "segnet": (RESNET, 12_538_261, 12_538_261),
    "pspnet": (RESNET, 12_622_293, 12_622_293),
    "deeplabv3": (RESNET, 15_313_749, 15_313_749),
    "deeplabv3plus": (RESNET, 12_338_629, 12_338_629),
    "aspp_unet": (RESNET, 12_964_469, 12_964_469),
    "torchvision": ({"pretrained": False}, 3_221_538, 3_221_538),
}
ON_ENCODERS = [name for name, case in CASES.items() if "encoder" in case[0]]


def build(name: str, num_classes: int = 21) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name](**CASES[name][0], num_classes=num_classes)


@cache
def built(name: str) -> nn.Module:
    """Return the model for 4 classes, in evaluation mode; no test may change it."""
    return build(name, num_classes=4).eval()


def test_every_model_has_a_case_here():
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True).stdout
    if not tracked:
        pytest.skip("this is no clone, so which models are the project's is not known")
    ours = {name for name, kind in MODELS.items() if kind.__module__.replace(".", "/") in tracked}  # not a reader's
    assert ours == CASES.keys()


OTHERS = [  # of other projects: ADE20K's two, the book's, the course's
    ("fcn_vgg16", {"num_classes": 151, "pretrained": False}, 22_269_973),
    ("ade_unet", {"num_classes": 151}, 34_523_095),
    ("resnet_v2_fcn", {"num_classes": 4, "levels": 4}, 11_105_892),
    ("resnet_v2_fcn", {"num_classes": 4, "levels": 5}, 15_236_964),
    ("torchvision", {"num_classes": 21, "network": "fcn_resnet50", "pretrained": False}, 32_957_013),
]
COUNTS = [(name, arguments | {"num_classes": 21}, *counts) for name, (arguments, *counts) in CASES.items()]


@pytest.mark.parametrize(("name", "arguments", "count", "trained"), COUNTS + [(*case, case[2]) for case in OTHERS])
def test_the_number_of_parameters_is_as_documented(name, arguments, count, trained):
    with torch.device("meta"):
        model = MODELS[name](**arguments)
    assert (count_parameters(model), count_parameters(model, trainable=True)) == (count, trained)
    assert name_of(model) == name


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"torchvision"}))  # which is used as it was trained
def test_an_image_of_odd_size_is_padded_right_and_below_with_the_mean_colour(name):
    model, images = built(name), torch.rand(2, 3, 25, 57)
    size = (28, 60) if name == "resnet_v2_fcn" else (32, 64)  # it pads maps for the rest, not the image
    padded = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1).repeat(2, 1, *size)
    padded[:, :, :25, :57] = images
    with torch.no_grad():
        logits = model(images)
        assert logits.shape == (2, 4, 25, 57)
        assert torch.allclose(logits, model(padded)[:, :, :25, :57], atol=1e-4)
        assert model(images[..., :1, :1]).shape == (2, 4, 1, 1)


def one_channel(conv: nn.Conv2d, x: torch.Tensor, weight: torch.Tensor, bias: None) -> torch.Tensor:
    """Return what a convolution with equal weights and no bias returns, in a fraction of the time."""
    one = nn.functional.conv2d(
        x.mean(1, keepdim=True), weight[:1].sum(1, keepdim=True), None, conv.stride, conv.padding, conv.dilation
    )
    return one.repeat(1, conv.out_channels, 1, 1)


def shift(name: str, side: int = 128, **arguments) -> float:
    """Build a model; return how far, in pixels, what the logits of a block in the middle depend on is from that block.

    With equal positive weights, without biases, and with means for maxima a network is linear on positive images.
    """
    with torch.device("meta"):  # random weights take long, and are not used
        model = MODELS[name](**arguments, num_classes=3)
    for key, module in list(model.to_empty(device="cpu").eval().named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        if isinstance(module, nn.MaxPool2d):
            model.set_submodule(key, nn.AvgPool2d(module.kernel_size, module.stride, module.padding))
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Conv2d) and module.groups == 1:  # all its channels are equal: compute one
                module._conv_forward = partial(one_channel, module)
        if hasattr(module, "normalize"):
            module.normalize = nn.Identity()
    images = (torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) / 100).requires_grad_()
    model.requires_grad_(False)(images)[
        ..., side // 2 - 32 : side // 2 + 32, side // 2 - 32 : side // 2 + 32
    ].sum().backward()
    weight, place = images.grad.abs().sum((0, 1)).double(), torch.arange(side) - (side - 1) / 2
    return max([(weight.sum(axis) * place).sum() / weight.sum() for axis in (0, 1)], key=abs).item()


PLACES = [(name, "") for name in sorted(CASES.keys() - set(ON_ENCODERS) - {"resnet_v2_fcn", "torchvision"})]
DIFFERENT = ("resnet18", "vgg16", "mobilenet_v1", "mobilenet_v2")  # the others are built as one of them is
PLACES += [(name, encoder) for name in ON_ENCODERS for encoder in DIFFERENT if name != "segnet"]  # see below
PLACES += [("deeplabv3plus", encoder) for encoder in ("resnet50", "mobilenet_v3_large", "efficientnet_b0")]


@pytest.mark.parametrize(("name", "encoder"), PLACES)
def test_the_logits_lie_where_the_image_is_with_every_encoder_at_every_stride(name, encoder):
    if not encoder:
        assert abs(shift(name, **CASES[name][0])) < 2
        return
    # VGG-16 is symmetric; the others pad what they stride over on one side, which needs room.
    side, tolerance = (128, 1) if encoder == "vgg16" else (192, 6)
    for stride in MODELS[name].output_strides:
        arguments = {"encoder": encoder, "pretrained": False, "output_stride": stride}
        assert abs(shift(name, side, **arguments)) < tolerance, stride


@pytest.mark.parametrize("encoder", ENCODERS)
def test_unpooling_adds_no_shift_from_step_to_step(encoder):
    """Each of many coarse values goes where random maxima send it: in the mean, to its own place."""
    torch.manual_seed(0)
    anchor, apart = ENCODERS[encoder]().anchor, []
    plain = SimpleNamespace(channels=[1] * 5, anchor=anchor, pools=False, before_pooling=lambda: None)
    decoder = Unpooling(plain, 1)
    decoder.steps = nn.ModuleList(nn.Identity() for _ in decoder.steps)
    for _ in range(4):
        maps = [torch.rand(1, 1, 256 // 2**n, 256 // 2**n) for n in range(4)]
        found = decoder([*maps, torch.arange(256.0).view(1, 1, 16, 16)])[0, 0]  # at 1/2
        places = found.nonzero()
        number = found[found > 0].long()
        coarse = torch.stack([number // 16, number % 16], dim=1)
        apart.append((2 * places + anchor) - (32 * coarse + 31 * anchor))
    assert torch.cat(apart).double().mean(0).abs().max() < 6


@pytest.mark.parametrize("name", [*ON_ENCODERS, "dilated_fcn"])
def test_logits_are_enlarged_in_fp32(name):
    """In bf16, with 8 bits for a fraction, two classes come out equal in one pixel of 300."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = built(name)(torch.rand(1, 3, 64, 64))
    assert logits.dtype == torch.float32 and (logits.bfloat16() != logits).float().mean() > 0.1


@pytest.mark.parametrize("levels", [1, 8])
def test_a_pyramid_of_too_few_or_too_many_levels_is_refused(levels):
    with pytest.raises(UserError, match=f"--levels {levels} must be from 2 to 7"):
        MODELS["resnet_v2_fcn"](4, levels=levels)


def test_resnet_v2_is_built_as_specified():
    model, sizes = build("resnet_v2_fcn", num_classes=4).train(), {}
    for key, module in model.named_modules():
        module.register_forward_hook(lambda _, x, y, key=key: sizes.update({key: tuple(y.shape[1:])}))
    model(torch.rand(1, 3, 100, 140))  # 64 divides neither
    units = [sizes[f"backbone.units.{i}"] for i in range(18)]
    assert units == [(64, 100, 140)] * 6 + [(128, 50, 70)] * 6 + [(256, 25, 35)] * 6
    assert [sizes[f"score.{i}"] for i in range(4)] == [(256, 16, 24), (256, 8, 12), (256, 4, 6), (256, 2, 3)]
    assert sizes["decoder.0"] == (256, 50, 70) and sizes["decoder.1"] == (256, 100, 140)
    for conv in (m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)):
        fan_in = conv.weight[0].numel()
        assert 0.9 < conv.weight.std() / (2 / fan_in) ** 0.5 < 1.1 and not conv.bias.any()


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_that_trains_gets_a_gradient_and_no_batch_normalisation_is_used_twice(name):
    model, uses = deepcopy(built(name)).train(), Counter()
    for key, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda *_, key=key: uses.update([key]))
    logits = model(torch.rand(2, 3, 64, 64))
    assert set(uses.values()) == ({1} if name not in ("ade_unet", "fcn_vgg16") else set())
    nn.functional.cross_entropy(logits, torch.randint(4, (2, 64, 64))).backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key
        else:
            assert parameter.grad is None and key.startswith("encoder."), key


@pytest.mark.parametrize("name", CASES)
def test_a_model_is_rebuilt_from_its_arguments_and_weights_alone(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # no pretrained weights here
    model, images = built(name), torch.rand(1, 3, 33, 40)
    again = MODELS[name](**model.arguments).eval()
    again.load_state_dict(model.state_dict())
    assert again.arguments == model.arguments
    with torch.no_grad():
        assert torch.equal(model(images), again(images))


def test_weights_from_a_file_are_not_needed_again(tmp_path):
    encoder = built("fcn8s").encoder
    torch.save(encoder.network.state_dict(), tmp_path / "w.pth")
    model = FCN8s("resnet18", 3, encoder_weights=tmp_path / "w.pth")
    assert torch.equal(model.encoder.network.conv1.weight, encoder.network.conv1.weight)
    (tmp_path / "w.pth").unlink()
    FCN8s(**model.arguments).load_state_dict(model.state_dict())


def test_the_baseline_is_built_as_specified():
    model = build("basic_fcn")
    for block in (*model.encoder, *model.decoder):
        assert [type(layer) for layer in block][1:] == [nn.ReLU, nn.BatchNorm2d]
        conv = block[0]
        fan_in, fan_out = conv.weight.shape[1] * 9, conv.weight.shape[0] * 9
        bound = (6 / (fan_in + fan_out)) ** 0.5  # Xavier, uniform
        assert 0.9 * bound < conv.weight.abs().max() <= bound and not conv.bias.any()


@cache
def scaled(name: str) -> nn.Module:
    """An encoder with weights that keep its values' size, without means over the map, which dilation moves."""
    torch.manual_seed(0)
    encoder = build_encoder(name, pretrained=False)
    for key, module in list(encoder.named_modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in")
        if isinstance(module, SqueezeExcitation):
            encoder.set_submodule(key, nn.Identity())
    return encoder.eval()


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", ENCODERS)
def test_a_dilated_encoder_has_the_old_values_with_others_in_between(name, output_stride):
    coarse, fine = (deepcopy(scaled(name)) for _ in range(2))
    if name == "vgg16":  # poolings whose stride goes are left out, so compare with a network without them
        for layer in ("23", "30")[int(output_stride == 16) :]:
            coarse.network.set_submodule(layer, nn.MaxPool2d(1, stride=2))
    dilate(fine, output_stride)
    images = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        pairs = list(zip(coarse(images), fine(images), strict=True))
    for stride, (few, many) in zip((2, 4, 8, 16, 32), pairs, strict=True):
        step = max(1, stride // output_stride)
        first = step - 1 if name == "mobilenet_v1" else 0  # it pads right and below where it strides
        assert many.shape[-1] == few.shape[-1] * step and few.abs().max() > 0.01
        assert torch.allclose(few, many[..., first::step, first::step], rtol=1e-3, atol=1e-5 * few.abs().max())


@pytest.mark.parametrize("output_stride", [8, 16])
def test_aspp_is_torchvisions(output_stride):
    from torchvision.models.segmentation.deeplabv3 import ASPP as TheirASPP

    rates = dilations_for(513, output_stride)
    assert rates == ((6, 12, 18) if output_stride == 16 else (12, 24, 36))  # the paper's
    ours, theirs = ASPP(40, rates), TheirASPP(40, rates)
    names = zip(ours.state_dict(), theirs.state_dict().values(), strict=True)
    ours.load_state_dict({name: torch.rand_like(value.float()) for name, value in names})
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.rand(2, 40, 50, 60)
    with torch.no_grad():
        assert torch.allclose(ours.eval()(x), theirs.eval()(x), rtol=1e-4)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_most_of_aspps_weights_see_more_than_padding(output_stride):
    for side in (96, 120, 224, 321, 480, 513, 800):
        rates, places = dilations_for(side, output_stride), -(-side // 32) * 32 // output_stride
        assert rates[2] < max(4, places)  # the outermost weight meets the map from some places
        if side >= 513:
            assert rates == tuple(96 * i // output_stride for i in (1, 2, 3))
    rates = dilations_for((120, 160), output_stride)
    assert rates == dilations_for(120, output_stride)
    model = DeepLabV3("mobilenet_v1", 3, pretrained=False, output_stride=output_stride, dilations=rates)
    for network in (model, DeepLabV3(**model.arguments)):
        assert [branch[0].dilation[0] for branch in network.decoder.aspp.branches] == [1, *rates]


def test_the_pyramid_has_means_of_1_2_3_and_6_regions_a_side():
    pyramid = PyramidPooling(8).eval()
    assert [level[0].output_size for level in pyramid.levels] == [1, 2, 3, 6]
    x = torch.rand(1, 8, 12, 12)
    for level in pyramid.levels:  # a projection that keeps the first two channels, and no normalisation
        nn.init.eye_(level[1][0].weight[:, :, 0, 0])
        level[1][1].eps = 1e-9
    with torch.no_grad():
        result = pyramid(x)
    assert result.shape == (1, 16, 12, 12) and torch.equal(result[:, :8], x)
    assert torch.allclose(result[0, 8:10], x.mean((2, 3))[0, :2, None, None].expand(2, 12, 12))
    corner = x[0, :2, :2, :2].mean((1, 2))  # the sixth part of each side; interpolation keeps the outermost value
    assert torch.allclose(result[0, 14:16, 0, 0], corner)


def test_fcn8s_sums_the_scores_of_three_strides():
    decoder = FCN8s("resnet18", 3, pretrained=False).decoder
    at_8, at_16, at_32 = torch.rand(1, 128, 8, 8), torch.rand(1, 256, 4, 4), torch.rand(1, 512, 2, 2)
    with torch.no_grad():
        whole = decoder([at_8[:, :64], at_8[:, :64], at_8, at_16, at_32])
        parts = decoder.score_8(at_8)
        parts = parts + decoder.up_16(decoder.score_16(at_16)) + decoder.up_16(decoder.up_32(decoder.score_32(at_32)))
    assert torch.allclose(whole, parts, atol=1e-5)


@pytest.mark.parametrize("anchor", [0, 0.5, 1])
def test_a_learned_upsample2x_starts_as_bilinear_interpolation(anchor):
    x = torch.rand(1, 3, 6, 7)
    with torch.no_grad():
        up = learned_upsample2x(3, anchor)(x)
    inside = (..., slice(2, -2), slice(2, -2))  # beyond the edge, a convolution sees zeros
    assert torch.allclose(up[inside], upsample(x, anchor=anchor)[inside], atol=1e-6)


class Ramp(nn.Module):
    """A decoder whose logits at stride 2 grow from left to right."""

    def forward(self, features):
        return torch.arange(32.0).expand(1, 3, 32, 32)


@pytest.mark.parametrize(("encoder", "anchor"), [("resnet18", 0), ("vgg16", 0.5), ("mobilenet_v1", 1)])
def test_logits_at_stride_2_are_enlarged_to_where_the_encoder_saw_them(encoder, anchor):
    model = ASPPUNet(encoder, 3, pretrained=False)
    model.decoder = Ramp()
    with torch.no_grad():
        logits = model(torch.rand(1, 3, 64, 64))
    places = (torch.arange(64) - anchor) / 2  # in the decoder's pixels
    assert torch.allclose(logits[0, 0, 0], places.clamp(0, 31))


@pytest.mark.parametrize(("factor", "anchor"), [(2, 0), (2, 1), (4, 0.5), (8, 0), (8, 1), (5, 0.5)])
def test_upsampling_puts_old_values_where_the_anchor_says(factor, anchor):
    x = torch.arange(12.0).expand(1, 1, 12, 12)
    up = upsample(x, factor, anchor)
    assert up.shape == (1, 1, 12 * factor, 12 * factor)
    places = factor * torch.arange(12) + (factor - 1) * anchor
    expected = ((torch.arange(12 * factor) - places[0]) / factor).clamp(0, 11)
    assert torch.allclose(up[0, 0, 3], expected, atol=1e-5)


def test_segnet_on_vgg16_unpools_where_the_encoder_pooled():
    model, pooled, unpooled = SegNet("vgg16", 3, pretrained=False).eval(), [], []
    for layer in model.encoder.network:
        if isinstance(layer, nn.MaxPool2d):
            layer.register_forward_hook(lambda _, x, y: pooled.append((x[0], y)))
    for step in model.decoder.steps:
        step.register_forward_pre_hook(lambda _, x: unpooled.append(x[0]))
    with torch.no_grad():
        model(torch.rand(1, 3, 64, 96))
    assert len(pooled) == len(unpooled) == 5
    for (before, after), put_back in zip(reversed(pooled), unpooled, strict=True):
        assert put_back.shape == before.shape
        maxima = nn.functional.interpolate(after, scale_factor=2) == before
        assert not put_back[~maxima].any() and put_back.any()
    # 13 convolutions down, 13 up, the last of which is the classifier.
    assert [len(step) for step in model.decoder.steps] == [3, 3, 3, 2, 2]


@pytest.mark.parametrize("encoder", [name for name in ENCODERS if name != "vgg16"])
def test_segnet_on_other_encoders_unpools_where_their_maps_have_maxima(encoder):
    model, seen = SegNet(encoder, 3, pretrained=False).eval(), []
    model.decoder.steps[-1].register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert model(images).shape == (1, 3, 64, 96)
        finest = model.encoder(images)[0]
    maxima = nn.functional.interpolate(nn.functional.max_pool2d(finest, 2), scale_factor=2) == finest
    assert not seen[0][~maxima].any() and seen[0].any()
