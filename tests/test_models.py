import pytest
import torch

from common.models import MODELS, count_parameters, name_of

# At 21 classes. A changed number is a changed network: say so in the docstring and in the CHANGELOG.
PARAMETERS = {"basic_fcn": 5_493_645}


def build(name: str, num_classes: int = 21) -> torch.nn.Module:
    torch.manual_seed(0)
    return MODELS[name](num_classes=num_classes)


@pytest.mark.parametrize("name", MODELS)
def test_the_number_of_parameters_is_pinned(name):
    assert count_parameters(build(name)) == PARAMETERS[name]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(32, 32), (37, 53), (1, 1), (64, 33)])
def test_logits_have_the_size_of_the_image_whatever_it_is(name, size):
    logits = build(name, 5).eval()(torch.rand(2, 3, *size))
    assert logits.shape == (2, 5, *size) and logits.isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_gradients_reach_every_parameter_that_is_trained(name):
    model = build(name, 5).train()
    model(torch.rand(2, 3, 64, 64)).square().mean().backward()
    silent = [key for key, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    # A bias before a batch normalisation cannot change anything, hence has no gradient beyond rounding.
    assert not [key for key in silent if not key.endswith("bias")]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_can_be_rebuilt_from_its_arguments(name):
    model = build(name, 5).eval()
    again = MODELS[name_of(model)](**model.arguments).eval()
    again.load_state_dict(model.state_dict())
    images = torch.rand(1, 3, 40, 40)
    assert torch.equal(model(images), again(images))


def test_a_class_that_is_not_in_models_is_named():
    with pytest.raises(KeyError, match="Linear is not in MODELS"):
        name_of(torch.nn.Linear(1, 1))
