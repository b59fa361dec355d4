"""The one exception for everything a user can cause and mend."""

import re


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
