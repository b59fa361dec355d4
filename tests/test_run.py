import json

import pytest
import torch
from conftest import started

from common.run import Run
from common.system.device import choose_device, choose_precision


def experiment(dataset: str = "voc2007", epochs: int = 60, pretrained: bool = True, size=(3, 4), run: Run = Run()):
    return run.start(experiment, locals())


def test_a_run_is_named_after_its_script_and_what_differs_from_the_defaults():
    assert experiment().name == "test_run"
    assert experiment("shapes", 5).name == "test_run-shapes-epochs5"
    assert experiment("my/photos", pretrained=False, run=Run(seed=3)).name == "test_run-photos-no_pretrained-s3"
    assert experiment("shapes", run=Run(name="mine")).name == "mine"


def test_starting_leaves_the_settings_as_they_were():
    settings = Run()
    run = experiment(run=settings)
    assert settings == Run() and settings.name == "" and run is not settings


def test_what_makes_two_runs_the_same_is_as_json_gives_it_back():
    run = experiment("shapes", 5, run=Run(device="cpu", precision="fp32", seed=3))
    expected = {"script": "test_run", "seed": 3, "precision": "fp32", "dataset": "shapes", "epochs": 5, "size": [3, 4]}
    assert run.experiment == expected | {"pretrained": True} == json.loads(json.dumps(run.experiment))


@pytest.mark.gpu
def test_auto_never_chooses_what_is_not_there():
    device = choose_device("auto")
    assert torch.zeros(1, device=device).device.type == device.type
    assert choose_precision("auto", torch.device("cpu")) in ("bf16", "fp32")
    assert choose_precision("auto", torch.device("mps")) == "fp32"
    assert choose_precision("fp32", device) == "fp32"
    if not torch.cuda.is_available():  # nor is bf16 then, as on older GPUs
        assert choose_precision("auto", torch.device("cuda")) == "fp16"


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_autocast_follows_the_precision_and_fp16_alone_scales_the_loss(precision):
    run = started(precision=precision)
    with run.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    assert run.scaler.is_enabled() == (precision == "fp16")
