"""Errors that a user can act on."""


class UserError(Exception):
    """A mistake in what Plumbline was given: config, data, paths, the machine's state.

    Its message is one line that names the thing, the place and the fix; it is shown without a traceback.
    """


def one_line(error: BaseException) -> str:
    """The error's message on one line, or its class name without a message."""
    return " ".join(str(error).split()) or type(error).__name__
