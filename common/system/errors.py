"""The one exception for everything a user can cause and mend."""

import contextlib
import re
from collections.abc import Iterator


class UserError(Exception):
    """A mistake with a remedy. Its message is one sentence: what is wrong, where, and what to do.

    `common.cli` prints it without a traceback and exits with status 1.
    """


def more(found: list) -> str:
    """Return how many of `found` there are beside the first, which is named: " (and 3 more)", or nothing."""
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Return whether `error` says that the memory of a processor or a GPU does not suffice."""
    # The last is what oneDNN, with which torch convolves on processors, says of it.
    words = "out of memory|(can't allocate|not enough) memory|ALLOC_FAILED|could not create a (primitive|memory)"
    return isinstance(error, MemoryError) or bool(re.search(words, str(error)))


@contextlib.contextmanager
def torch_errors(batch_size: int) -> Iterator[None]:
    """Turn what torch says of ordinary mistakes into a sentence: too large or small a batch, void, all frozen."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            "batch normalisation cannot work on a single value: a batch has one image, which the network shrinks or "
            "pools to one pixel; use two training images or more, and a --batch-size of 2 or more"
        ) from None
    except IndexError as error:  # on a GPU this is a device-side assert, see below
        if not (found := re.search(r"Target (\d+) is out of bounds", str(error))):
            raise
        raise UserError(
            f"the loss met the mask value {found[1]}, which is none of the classes that the model tells apart; 255 is "
            "void: torch's losses pass over it with ignore_index=255"
        ) from None
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError, as is the processor's
        if "does not require grad" in str(error):
            raise UserError("nothing is trained: all that the loss depends on is frozen; unfreeze a part") from None
        if "device-side assert" in str(error):
            raise UserError(
                "the GPU met a value out of range, most likely a mask value that is not a class of the model; run the "
                "same command with --device cpu, which names the value"
            ) from None
        if not is_out_of_memory(error):
            raise
        smaller = f"--batch-size {batch_size // 2}" if batch_size > 1 else "a smaller --image-size"
        raise UserError(f"the memory does not suffice for batches of {batch_size} images; try {smaller}") from None
