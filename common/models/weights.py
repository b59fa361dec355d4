"""Trained weights: from a local file, or downloaded once into torch.hub's cache."""

import socket
from http.client import HTTPException
from pathlib import Path

import torch
from torch import nn

from common.system.errors import UserError
from common.system.files import load_tensors

TIMEOUT = 10  # seconds to wait for the server's answer


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors in the file at `path` (or under its key "state_dict") by name, on the CPU.

    Loading runs no code from the file.

    Raises:
        UserError: the file is missing or damaged, or is not a dict of tensors.
    """
    contents = load_tensors(path)
    if isinstance(contents, dict):
        contents = contents.get("state_dict", contents)
    if not isinstance(contents, dict) or not all(isinstance(value, torch.Tensor) for value in contents.values()):
        raise UserError(f"{path} is not a dict of named tensors; give a file of weights like torchvision's")
    return contents


def copy_weights(weights: dict[str, torch.Tensor], network: nn.Module, name: str, path: Path) -> None:
    """Copy `weights`, read from `path`, into `network`, called `name` in messages.

    Raises:
        UserError: a tensor is missing, left over, or has another shape.
    """
    try:
        network.load_state_dict(weights)  # a plain dict: torch then accepts old files without num_batches_tracked
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()  # the first of torch's reasons
        raise UserError(
            f"{path} does not hold weights of {name} ({reason:.200}); give a file of that network"
        ) from None


def download(name: str, otherwise: str, searched: str = "") -> Path:
    """Return the path of torchvision's weights for network `name`; download the file if it is missing.

    Args:
        otherwise: end of the error message: what else the user can do.
        searched: beginning of the error message: where the weights were searched before.

    Raises:
        UserError: the download failed; the message names the file and what to do.
    """
    from torchvision.models import get_model_weights  # slow to import

    url = next(iter(get_model_weights(name))).url  # of the first version, if there are several
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if path.is_file():
        return path
    digest = path.stem.rpartition("-")[2]  # a file name of torchvision ends with the start of its SHA-256
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        socket.setdefaulttimeout(TIMEOUT)  # without it, a download could wait for ever
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digest)
    except (OSError, HTTPException, RuntimeError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{searched}{path.name}, the weights of {name}, cannot be downloaded ({reason}); put a copy in "
            f"{path.parent}, or {otherwise}"
        ) from None
    finally:
        socket.setdefaulttimeout(None)
    return path
