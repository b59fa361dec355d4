"""Export a trained model to ONNX. The file runs without this repository and without torch.

    pip install onnx onnxscript onnxruntime
    python -m tools.export                                                        # the newest best_*.pt here
    python -m tools.export --checkpoint best_train_5_b.pt --image-size 480x640    # the input size is fixed

Input "images": float32 (1, 3, height, width), RGB from 0 to 1, stretched to this size. The model normalises them.
Output "logits": float32 (1, classes, height, width). The argmax is the class, the softmax gives probabilities.
The file also holds the names and colours of the classes, as JSON. Use it like this:

    import json

    import numpy as np
    import onnxruntime
    from PIL import Image, ImageOps

    session = onnxruntime.InferenceSession("best_train_5_b.onnx")
    height, width = session.get_inputs()[0].shape[2:]
    photo = ImageOps.exif_transpose(Image.open("holiday.jpg")).convert("RGB")
    pixels = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    (logits,) = session.run(["logits"], {"images": pixels.transpose(2, 0, 1)[None]})
    mask = Image.fromarray(logits[0].argmax(0).astype(np.uint8)).resize(photo.size, Image.Resampling.NEAREST)
    mask.putpalette(np.ravel(json.loads(session.get_modelmeta().custom_metadata_map["palette"])).tolist())
    mask.save("mask.png")
"""

import importlib.util
import json
import logging
import warnings
from pathlib import Path

import torch
from torch import nn

from common.checkpoint import find_checkpoint, load_model
from common.cli import cli
from common.datasets import Size, height_and_width
from common.datasets.shapes import draw_scene
from common.inference import resize
from common.system.errors import UserError
from common.system.files import atomic

TOLERANCE = 1e-4  # of the difference between torch's and onnxruntime's logits, relative to the largest logit if above 1


def main(
    checkpoint: str = "",  # best_*.pt of a training; by default the newest in the current folder
    image_size: Size = 0,  # input size in pixels, 224 or 120x160; 0 for the size of the validation images
    out: str = "",  # file to write; by default the checkpoint's name with .onnx
    overwrite: bool = False,  # replace an existing file
):
    """Write the ONNX file if it agrees with the model; return its path."""
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(name)]:
        raise UserError(f"not installed: {', '.join(missing)}; pip install {' '.join(missing)}")
    source = find_checkpoint(checkpoint)
    path = Path(out) if out else source.with_suffix(".onnx")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists; add --overwrite, or name another --out")
    model, metadata = load_model(source)
    height, width = height_and_width(image_size) if image_size else metadata["image_size"]
    images = resize(draw_scene(0)[0], (height, width)) / 255
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # hides notes about its own constants
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter
        names = {"input_names": ["images"], "output_names": ["logits"]}
        program = torch.onnx.export(model, (images,), dynamo=True, verbose=False, **names)
    kept = {key: json.dumps(metadata[key]) for key in ("run", "dataset", "classes", "palette")}
    program.model.metadata_props.update(kept)
    with atomic(path) as temporary:
        program.save(temporary)
        agreement = check_onnx(model, images, temporary)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, images (1, 3, {height}, {width}) in, {agreement}")
    return path


def check_onnx(model: nn.Module, images: torch.Tensor, path: Path) -> str:
    """Describe how well the file at `path` agrees with `model`; raise UserError if it does not."""
    import onnxruntime  # optional: only this tool needs it

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = model(images)
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    difference, largest = (torch.from_numpy(logits) - expected).abs().max().item(), expected.abs().max().item()
    text = f"logits differ from torch's by at most {difference:.1e} (largest logit: {largest:.2g})"
    if not difference <= TOLERANCE * max(1, largest):
        raise UserError(f"the ONNX file was deleted: its {text}")
    return text


if __name__ == "__main__":
    cli(main)
