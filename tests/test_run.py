import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import one_sentence, python, started

from common.run import Run, claim_name, experiment
from common.system.device import bf16_time, choose_device, choose_precision


@experiment
def main(dataset: str = "voc2007", epochs: int = 60, pretrained: bool = True, size=(3, 4), run: Run = Run()):
    return run


def test_a_run_is_named_after_its_script_and_the_parameters_that_differ_from_their_defaults():
    assert main().name == "test_run"
    assert main("shapes", 5).name == "test_run-shapes-epochs5"
    assert main("my/photos", pretrained=False, run=Run(seed=3)).name == "test_run-photos-no_pretrained-s3"
    assert main("shapes", run=Run(name="mine")).name == "mine"


def test_starting_leaves_the_settings_as_they_were():
    settings = Run()
    run = main(run=settings)
    assert settings == Run() and settings.name == "" and run is not settings


def test_the_record_of_a_run_is_as_json_gives_it_back():
    run = main("shapes", 5, run=Run(device="cpu", precision="fp32", seed=3))
    expected = {"script": "test_run", "seed": 3, "precision": "fp32", "dataset": "shapes", "epochs": 5, "size": [3, 4]}
    assert run.settings == expected | {"pretrained": True} == json.loads(json.dumps(run.settings))


def test_a_name_that_is_taken_gets_a_number(capsys):
    assert [main(run=Run(name="mine")).name for _ in range(3)] == ["mine", "mine-2", "mine-3"]
    assert "a run named mine exists, so this one is named mine-3" in capsys.readouterr().out


def test_weights_without_records_keep_their_name():
    Path("best_mine.pt").write_bytes(b"of a run whose folder was deleted")
    assert main(run=Run(name="mine")).name == "mine-2"


def test_runs_that_start_together_get_different_names():
    with ThreadPoolExecutor(8) as pool:
        names = [*pool.map(lambda _: claim_name("mine"), range(24))]
    assert len(set(names)) == 24


def test_a_run_that_ends_before_its_first_epoch_leaves_no_folder(tmp_path):
    done = python("train.py", "--dataset", "nowhere")
    assert "--dataset nowhere is not known" in one_sentence(done)
    assert not any(Path("runs").iterdir())


def test_a_run_that_follows_another_has_its_own_folder_and_is_told_apart():
    run = main(run=Run(name="mine", init="best_x.pt"))
    after = run.then("fine_tuned")
    assert (after.name, after.resume, after.init) == ("mine-fine_tuned", False, "") and after.folder.is_dir()
    assert after.settings["part"] == "fine_tuned" and "part" not in run.settings


@pytest.mark.gpu
def test_auto_never_chooses_what_is_not_there():
    device = choose_device("auto")
    assert torch.zeros(1, device=device).device.type == device.type
    assert choose_precision("auto", torch.device("cpu")) in ("bf16", "fp32")
    assert choose_precision("auto", torch.device("mps")) == "fp32"
    assert choose_precision("fp32", device) == "fp32"
    if not torch.cuda.is_available():  # nor is bf16 then, as on older GPUs
        assert choose_precision("auto", torch.device("cuda")) == "fp16"


def test_auto_on_a_processor_is_the_faster_type():
    x, faster = torch.randn(1024, 1024), {}
    for _ in range(5):
        for dtype in (torch.float32, torch.bfloat16):
            matrix, start = x.to(dtype), time.thread_time()
            matrix @ matrix
            faster[dtype] = min(time.thread_time() - start, faster.get(dtype, 1e9))
    ratio = faster[torch.bfloat16] / faster[torch.float32]
    if not 0.6 < ratio < 1.1:  # in between, either is right
        assert choose_precision("auto", torch.device("cpu")) == ("bf16" if ratio < 1 else "fp32")


def test_auto_is_measured_once_and_chooses_the_same_again():
    ratios = [bf16_time.__wrapped__() for _ in range(5)]
    assert len({ratio < 0.9 for ratio in ratios}) == 1
    assert bf16_time() == bf16_time()


def test_who_asks_for_fp32_gets_no_tf32():
    torch.backends.cudnn.allow_tf32 = True
    Run(precision="fp32").prepared()
    assert not torch.backends.cudnn.allow_tf32 and torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_autocast_follows_the_precision_and_fp16_alone_scales_the_loss(precision):
    run = started(precision=precision)
    with run.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    assert run.scaler.is_enabled() == (precision == "fp16")
