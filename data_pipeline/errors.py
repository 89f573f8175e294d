"""The one exception that means: the user's input or configuration is wrong."""


class InputError(ValueError):
    """Says what is wrong, where, and how to mend it, in one line.

    Workflows print the message without a traceback and exit with code 2. Anything else that escapes a
    workflow is a bug and keeps its traceback.
    """
