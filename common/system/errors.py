"""UserError, the exception for mistakes that a user can correct, and the translation of torch's errors into it."""

import contextlib
import re
from collections.abc import Iterator


class UserError(Exception):
    """A mistake that the user can correct. The message is one sentence. It names the mistake, the place and the remedy.

    `common.cli` prints it without a traceback and exits with status 1.
    """


def more(found: list) -> str:
    """Return how many items `found` has besides the first, such as " (and 3 more)"; "" for a single one."""
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Return whether `error` says that the memory of a CPU or a GPU is too small."""
    # The last alternative is from oneDNN, which torch uses for convolutions on CPUs.
    words = "out of memory|(can't allocate|not enough) memory|ALLOC_FAILED|could not create a (primitive|memory)"
    return isinstance(error, MemoryError) or bool(re.search(words, str(error)))


@contextlib.contextmanager
def torch_errors(batch_size: int) -> Iterator[None]:
    """Turn torch's errors about common mistakes into UserErrors: batch size, mask values, frozen model."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            "batch normalisation needs more than one value: a batch has one image, which the network shrinks or "
            "pools to one pixel; use two training images or more, and a --batch-size of 2 or more"
        ) from None
    except IndexError as error:  # on a GPU, this is the device-side assert below
        if not (found := re.search(r"Target (\d+) is out of bounds", str(error))):
            raise
        raise UserError(
            f"the loss met the mask value {found[1]}, which is not a class of the model; if it is 255 (void), give "
            "torch's loss ignore_index=255"
        ) from None
    except (RuntimeError, MemoryError) as error:  # out of memory is a RuntimeError on CPUs and GPUs
        if "does not require grad" in str(error):
            raise UserError("nothing is trained: the loss depends on frozen parameters only; unfreeze some") from None
        if "device-side assert" in str(error):
            raise UserError(
                "the GPU met a value out of range, most likely a mask value that is not a class of the model; run the "
                "same command with --device cpu, which names the value"
            ) from None
        if not is_out_of_memory(error):
            raise
        smaller = f"--batch-size {batch_size // 2}" if batch_size > 1 else "a smaller --image-size"
        raise UserError(f"the memory does not suffice for batches of {batch_size} images; try {smaller}") from None
