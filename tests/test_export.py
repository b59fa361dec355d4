import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import python, started, write_checkpoint
from PIL import Image

from common.datasets.reading import read_image
from common.datasets.shapes import CLASSES, draw_scene
from common.inference import predict
from common.models import MODELS, build
from common.system.errors import UserError
from tools import export

needs_onnx = pytest.mark.skipif(
    any(not export.importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="onnx, onnxscript and onnxruntime are not installed",
)


@pytest.mark.slow
@needs_onnx
def test_an_exported_model_runs_without_this_repository_as_the_help_shows(tmp_path):
    model = write_checkpoint(Path("best_train_5_b.pt"))
    picture = draw_scene(1, 90)[0].crop((0, 0, 90, 60))
    (exif := picture.getexif())[0x0112] = 6  # the camera was held upright
    picture.save("holiday.jpg", exif=exif)
    result = python("tools.export", "--checkpoint", "best_train_5_b.pt", "--image-size", "64x96")
    assert result.returncode == 0 and "logits differ from torch's by" in result.stdout, result.stderr
    assert not result.stderr

    lines = export.__doc__[export.__doc__.index("    import json") :].splitlines()
    Path("example.py").write_text("\n".join(line.removeprefix("    ") for line in lines))
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("best_train_5_b.onnx", "holiday.jpg", "example.py"):
        shutil.copy(name, alone)
    subprocess.run([sys.executable, "example.py"], cwd=alone, check=True)
    with Image.open(alone / "mask.png") as mask:
        assert mask.size == (60, 90) and mask.getpalette()[3:6] == [230, 75, 60]
        ours = predict(model, read_image(Path("holiday.jpg")), (64, 96), started())
        assert (np.asarray(mask) == ours).mean() > 0.9  # logits are enlarged here, classes there


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_model_can_be_exported(name, capsys):
    model = build(name, num_classes=len(CLASSES), encoder="mobilenet_v2", pretrained=False)
    write_checkpoint(Path("best_x.pt"), model, size=(64, 96))
    export.main("best_x.pt")
    assert "images (1, 3, 64, 96) in, logits differ" in capsys.readouterr().out


@pytest.mark.slow
@needs_onnx
def test_nothing_is_overwritten_and_a_wrong_file_is_not_kept(monkeypatch):
    write_checkpoint(Path("best_x.pt"))
    Path("best_x.onnx").write_text("mine")
    with pytest.raises(UserError, match=r"best_x\.onnx exists; add --overwrite"):
        export.main("best_x.pt")
    monkeypatch.setattr(export, "TOLERANCE", -1)
    with pytest.raises(UserError, match=r"was deleted: its logits differ"):
        export.main("best_x.pt", overwrite=True)
    assert Path("best_x.onnx").read_text() == "mine" and not list(Path().glob(".*.tmp"))


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed: onnx, onnxscript, onnxruntime; pip install onnx"):
        export.main("best_x.pt")
