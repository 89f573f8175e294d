"""The one exception that means: the user's input or configuration is wrong."""


class InputError(ValueError):
    """Says what is wrong, where, and how to mend it, in one line.

    Workflows print the message without a traceback and exit with code 2. Anything else that escapes a
    workflow is a bug and keeps its traceback.
    """


class Busy(InputError):
    """Another process works on the same thing: nothing is wrong, and the same command may do later.

    Workflows print the message and exit with code 1, so that a scheduler tries again.
    """


class Overtaken(Busy):
    """Another process has written since this one looked: it held the lock no more. Nothing of this one is visible."""


def find_error(error: BaseException, *kinds: type[BaseException]) -> BaseException | None:
    """The error of one of these kinds that an error is, or wraps: Ray hands over what a task raised inside its own."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, kinds):
            return current
        pending += [current.__cause__, current.__context__, getattr(current, "cause", None)]
        pending += list(getattr(current, "worker_failures", {}).values())
    return None
