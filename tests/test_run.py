import copy
import json

import pytest
import torch
from conftest import started

from common.errors import UserError
from common.run import Run, choose_device, choose_precision


def experiment(dataset: str = "voc2007", epochs: int = 60, pretrained: bool = True, run: Run = Run()):
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


def test_the_parameters_are_recorded():
    run = experiment("shapes", 5)
    run.record()
    record = json.loads((run.folder / "config.json").read_text())
    assert record["parameters"] == {"dataset": "shapes", "epochs": 5, "pretrained": True}
    assert record["versions"]["torch"] == torch.__version__


def test_a_run_that_does_not_get_to_train_costs_an_earlier_one_nothing():
    (run := experiment("shapes")).record()
    result = run.folder / "test.json"
    result.write_text("scores")
    config = (run.folder / "config.json").read_bytes()
    experiment("shapes")  # whose data then cannot be read, say
    assert result.read_text() == "scores" and (run.folder / "config.json").read_bytes() == config
    experiment("shapes").record()
    assert not result.exists()


def test_a_run_on_other_data_does_not_take_the_place_of_one_of_the_same_name():
    experiment("a/photos").record()
    experiment("a/photos/").record()
    with pytest.raises(UserError, match=r"photos is of a run of that name on a/photos/, not b/photos; .* --name"):
        experiment("b/photos").record()


def test_a_run_goes_on_with_its_own_settings_and_data_only():
    run = experiment("shapes", run=Run(clip_norm=1.0))
    run.splits = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}
    run.record()
    run.resume = True
    run.record()
    for name in ("config.json", "splits.json"):  # damaged ones are nothing to compare with
        whole = (run.folder / name).read_text()
        for damaged in (whole[:20], "[]", ""):
            (run.folder / name).write_text(damaged)
            run.record()
        (run.folder / name).write_text(whole)
    for changes, message in (
        ({"clip_norm": 0.0}, r"began with --clip-norm 1\.0, not 0\.0; give the same flags"),
        ({"splits": run.splits | {"val": ["d"], "test": ["c"]}}, r"the images or their splits are not those in"),
    ):
        other = copy.copy(run)
        vars(other).update(changes)
        with pytest.raises(UserError, match=message):
            other.record()


def test_the_seed_decides_the_initial_weights():
    def draw(seed: int) -> torch.Tensor:
        started(seed=seed)
        return torch.nn.Linear(3, 3).weight

    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))


def test_auto_never_chooses_what_is_not_there():
    device = choose_device("auto")
    assert torch.zeros(1, device=device).device.type == device.type
    assert choose_precision("auto", torch.device("cpu")) in ("bf16", "fp32")
    assert choose_precision("auto", torch.device("mps")) == "fp32"
    assert choose_precision("fp32", device) == "fp32"


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_autocast_follows_the_precision(precision):
    with started(precision=precision).autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]


def test_processes_that_torchrun_did_not_start_are_explained(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"WORLD_SIZE is set, but not LOCAL_RANK, .*RANK; start several"):
        Run(name="test").start(experiment, {})
