"""The one exception for everything a user can cause and mend."""


class UserError(Exception):
    """A mistake with a remedy. Its message is one sentence: what is wrong, where, and what to do.

    `common.cli` prints it without a traceback and exits with status 1.
    """
