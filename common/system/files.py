"""Reading and writing files; a written file is complete or absent."""

import contextlib
import errno
import json
import os
import pickle
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from common.system.errors import UserError


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` if the block succeeds, delete it if not.

    A reader of `path` finds the old file or the new one, never half a file, even if the writer is killed.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")  # the next process overwrites the file of a killed one
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # already renamed, or never written
            temporary.unlink()


def load_tensors(path: Path) -> object:
    """Return the plain values and tensors that torch.save wrote to `path`, on the CPU. No code in the file runs.

    Raises:
        UserError: the file is missing or damaged, or holds other objects.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise many kinds of errors
        if isinstance(error, pickle.UnpicklingError) or "TorchScript" in str(error):
            raise UserError(
                f"{path} holds more than plain values and tensors, or is damaged; it was not loaded, because loading "
                "it could run code"
            ) from None
        raise UserError(f"{path} is damaged or cut short; replace it by a whole copy") from None


def check_writable(path: Path) -> None:
    """Raise UserError unless a file can be written to `path`; create no folder yet."""
    try:
        with tempfile.TemporaryFile(dir=next(folder for folder in path.absolute().parents if folder.exists())):
            pass
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder has that name")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write `value` to `path` atomically, as indented JSON; paths and devices become strings."""
    text = json.dumps(value, indent=2, default=str)
    text = re.sub(r"\[\n[^][{}\"]+\]", lambda numbers: f"[{' '.join(numbers[0][1:-1].split())}]", text)  # on one line
    write_text(path, text + "\n")


def read_json(path: Path) -> dict:
    """Return the dict that `write_json` wrote to `path`; an empty dict if the file is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
