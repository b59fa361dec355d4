import importlib.util
import json
from pathlib import Path

import pytest
import torch
from conftest import SHARED, needs_shared, one_sentence, python

import overfit
import train
from common import checkpoint
from common.run import Run
from common.system.errors import UserError

COARSE = {"fcn8s": 0.93, "pspnet": 0.75, "deeplabv3": 0.7}  # 8x8 or 4x4 places at 64 px cannot draw every corner


@pytest.mark.parametrize("model", COARSE)
@pytest.mark.slow
def test_models_with_coarse_maps_come_close(model, few_shapes):
    with pytest.raises(UserError, match="on its one training image") as caught:
        overfit.main("shapes", image_size=64, model=model, run=Run(device="cpu", name="test"))
    assert float(str(caught.value).split("mIoU ")[1].split()[0]) > COARSE[model]


@pytest.mark.parametrize("model", ["basic_fcn", "dilated_fcn", "encoder_unet", "segnet"])
@pytest.mark.slow
def test_a_model_overfits_one_image(model, few_shapes):
    scores = overfit.main("shapes", image_size=64, model=model, run=Run(device="cpu", name="test"))
    on_train, on_val = ({title: of[split]["mIoU"] for title, of in scores.items()} for split in ("train", "val"))
    assert on_train["overfitted"] >= 0.99 > max(on_val["overfitted"], on_train["untrained"])
    assert json.loads(Path("runs/test/scores.json").read_text()) == scores
    assert len(Path("runs/test/history.csv").read_text().splitlines()) == 1 + 300
    for kind in ("", "_predictions"):
        assert Path(f"plots/test{kind}.png").stat().st_size > 5000


def test_a_network_that_does_not_learn_it_ends_in_an_explanation(few_shapes, without_pictures):
    with pytest.raises(UserError, match=r"DilatedFCN reached mIoU 0\.\d+ on its one training image"):
        overfit.main("shapes", image_size=32, model="dilated_fcn", steps=1, lr=0, run=Run(device="cpu"))


def test_a_model_of_ones_own_is_overfitted_without_being_registered(few_shapes, without_pictures):
    text = Path(overfit.__file__).read_text()
    built = "build(model, train_set.num_classes, encoder=encoder, pretrained=False, freeze_encoder=False)"
    assert built in text
    for classes, says in (("", r"reached mIoU 0\.\d+ on its"), (" + 1", r"returns \(1, 7, 32, 32\), but should")):
        Path("mine.py").write_text(text.replace(built, f"torch.nn.Conv2d(3, train_set.num_classes{classes}, 1)"))
        spec = importlib.util.spec_from_file_location("mine", "mine.py")
        spec.loader.exec_module(mine := importlib.util.module_from_spec(spec))
        with pytest.raises(UserError, match=says):
            mine.main("shapes", image_size=32, steps=3, run=Run(device="cpu"))


def test_a_model_to_be_shown_beside_must_tell_the_same_classes(few_shapes, small_network, without_pictures):
    with pytest.raises(UserError, match=r"nothing\.pt"):
        overfit.main("shapes", image_size=32, trained="nothing.pt", run=Run(device="cpu"))
    train.main("shapes", image_size=32, epochs=1, run=Run(device="cpu", name="x"))
    contents = checkpoint.load(Path("best_x.pt"))
    torch.save(contents | {"classes": ["background", "a", "b", "c", "d", "e"]}, "best_x.pt")
    with pytest.raises(UserError, match=r"best_x\.pt has other classes than shapes"):
        overfit.main("shapes", image_size=32, trained="best_x.pt", run=Run(device="cpu"))


def test_an_image_that_is_not_there_is_named(few_shapes):
    with pytest.raises(UserError, match="the training images of shapes are 0 to 23"):
        overfit.main("shapes", image_size=32, image=24, run=Run(device="cpu"))


@needs_shared
@pytest.mark.slow
def test_a_real_image_is_learnt_within_300_steps():
    result = python("overfit.py", "--data-root", SHARED / "data", "--image-size", "96", timeout=900)
    assert result.returncode == 0, one_sentence(result)


def test_weights_to_start_from_are_refused(few_shapes):
    with pytest.raises(UserError, match="always starts from random weights"):
        overfit.main("shapes", run=Run(device="cpu", init="best_x.pt"))
