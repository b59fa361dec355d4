"""Use a trained model on an image of any size."""

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from common.run import Run


@torch.no_grad()
def predict(model: nn.Module, image: Image.Image, image_size: tuple[int, int], run: Run) -> np.ndarray:
    """Return the classes of an RGB image's pixels, (H, W) uint8, at the image's own size.

    The network sees the image resized to `image_size` (height, width), as in training; its logits are enlarged to the
    image's size, bilinearly, before the best class is chosen.
    """
    height, width = image_size
    pixels = np.array(image.resize((width, height), Image.Resampling.BILINEAR))
    batch = torch.from_numpy(pixels).to(run.device).permute(2, 0, 1)[None].float() / 255
    with run.autocast():
        logits = model.to(run.device).eval()(batch).float()
    logits = F.interpolate(logits, size=image.size[::-1], mode="bilinear", align_corners=False)
    return logits.argmax(1)[0].to("cpu", torch.uint8).numpy()
