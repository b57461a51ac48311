"""Errors that a user can act on."""


class UserError(Exception):
    """A mistake in what Plumbline was given: config, data, paths, the machine's state.

    Its message is one line that names the thing, the place and the fix; it is shown without a traceback.
    """
