"""The two networks of the ADE20K project, layer by layer as it describes them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.models import FCNVGG16, ADEUNet


def layers(model: nn.Module, kind: type) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, kind)]


def test_the_fcn_sums_the_scores_of_three_poolings():
    torch.manual_seed(0)
    model = FCNVGG16(7, pretrained=False).eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        _, _, pool3, pool4, pool5 = model.encoder(images)
        assert [pool.shape[1:] for pool in (pool3, pool4, pool5)] == [(256, 8, 12), (512, 4, 6), (512, 2, 3)]
        t = F.conv_transpose2d(pool5, model.up5.weight, stride=2, padding=1).relu()
        t = t + F.conv2d(pool4, model.score4.weight, model.score4.bias)
        u = F.conv_transpose2d(t, model.up4.weight, stride=2, padding=1).relu()
        u = u + F.conv2d(pool3, model.score3.weight, model.score3.bias)
        logits = F.conv_transpose2d(u, model.up3.weight, model.up3.bias, stride=8, padding=4)
        torch.testing.assert_close(model(images), logits)
    sizes = [(layer.kernel_size, layer.stride, layer.bias is None) for layer in layers(model, nn.ConvTranspose2d)]
    assert sizes == [((4, 4), (2, 2), True), ((4, 4), (2, 2), True), ((16, 16), (8, 8), False)]


def test_the_fcn_takes_vgg_16s_weights_from_a_file(tmp_path):
    weights = FCNVGG16(2, pretrained=False).encoder.network.state_dict()
    torch.save({f"features.{key}": value for key, value in weights.items()}, tmp_path / "vgg16.pth")
    model = FCNVGG16(3, encoder_weights=tmp_path / "vgg16.pth")
    assert torch.equal(model.encoder.network[28].weight, weights["28.weight"])
    assert model.arguments == {"num_classes": 3, "pretrained": False}


def test_the_u_net_has_its_widths_its_up_convolutions_and_no_batch_normalisation():
    model = ADEUNet(151)
    down = [conv.out_channels for block in model.down for conv in layers(block, nn.Conv2d)]
    assert down == [64, 64, 128, 128, 256, 256, 512, 512, 1024, 1024]
    assert all(conv.kernel_size == (3, 3) for block in model.down for conv in layers(block, nn.Conv2d))
    for up in layers(model, nn.ConvTranspose2d):
        assert (up.kernel_size, up.stride, up.bias is not None) == ((3, 3), (2, 2), True)
    assert not layers(model, nn.BatchNorm2d)
    assert model.classifier.kernel_size == (1, 1)


def test_the_u_net_drops_values_after_each_pooling_and_each_concatenation_in_training_only():
    model, given = ADEUNet(2), []
    model.dropout.register_forward_hook(lambda _, inputs, output: given.append((inputs[0], output)))
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        model.train()(images)
        assert [values.shape[1] for values, _ in given] == [64, 128, 256, 512, 1024, 512, 256, 128]
        for before, after in given[:4]:
            assert ((after == 0) & (before > 0)).sum() / (before > 0).sum() == pytest.approx(0.3, abs=0.1)
        given.clear()
        assert torch.equal(model.eval()(images), model(images))
        assert all(torch.equal(before, after) for before, after in given)


def test_the_u_net_neither_fades_nor_explodes_at_the_start():
    torch.manual_seed(0)
    model = ADEUNet(151).eval()
    with torch.no_grad():
        logits = model(torch.rand(2, 3, 128, 128))
    assert 0.1 < logits.std() < 10
