"""ImageNet weights: from a local file, or from torch.hub's cache, which is filled by one download."""

import socket
from http.client import HTTPException
from pathlib import Path

import torch
from torch import nn

from common.system.errors import UserError
from common.system.files import load_tensors

TIMEOUT = 10  # seconds without an answer from the server, before a download is given up


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors in the file at `path` by name, on the CPU; also those under "state_dict" in it.

    Nothing in the file is executed.

    Raises:
        UserError: it is missing, damaged, or holds anything but tensors.
    """
    contents = load_tensors(path)
    if isinstance(contents, dict):
        contents = contents.get("state_dict", contents)
    if not isinstance(contents, dict) or not all(isinstance(value, torch.Tensor) for value in contents.values()):
        raise UserError(f"{path} holds no table of named tensors; give a file of weights as torchvision's are")
    return contents


def copy_weights(weights: dict[str, torch.Tensor], network: nn.Module, name: str, path: Path) -> None:
    """Copy `weights`, read from `path`, into `network`, which the user knows as `name`.

    Raises:
        UserError: a tensor is missing, left over, or of another shape: these are weights of something else.
    """
    try:
        network.load_state_dict(weights)  # older files lack BatchNorm's count of batches: of a dict, torch accepts that
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()  # torch tells them all, one kind a line
        raise UserError(
            f"{path} does not hold weights of {name} ({reason:.200}); give a file of that network"
        ) from None


def download(name: str, searched: str = "") -> Path:
    """Return the file with torchvision's ImageNet weights of network `name`, downloaded unless it is there already.

    Args:
        searched: where else was looked for them, for the message.

    Raises:
        UserError: it is not there and cannot be had; the message names the file and the ways out.
    """
    from torchvision.models import get_model_weights  # slow to import

    url = get_model_weights(name).IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if path.is_file():
        return path
    digest = path.stem.rpartition("-")[2]  # torchvision's files are named after the start of their SHA-256
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        socket.setdefaulttimeout(TIMEOUT)  # the default is to wait for ever
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digest)
    except (OSError, HTTPException, RuntimeError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{searched}{path.name}, the ImageNet weights of {name}, cannot be downloaded ({reason}); put a copy in "
            f"{path.parent}, name one with --encoder-weights, or start from random weights with --no-pretrained"
        ) from None
    finally:
        socket.setdefaulttimeout(None)
    return path
