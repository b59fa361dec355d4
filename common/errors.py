"""The one exception for everything a user can cause and mend."""


class UserError(Exception):
    """A mistake with a remedy. Its message is one sentence: what is wrong, where, and what to do.

    `common.cli` prints it without a traceback and exits with status 1.
    """


def more(found: list) -> str:
    """Return how many of `found` there are beside the first, which is named: " (and 3 more)", or nothing."""
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""
