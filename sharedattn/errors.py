"""The one error for faulty input, raised before any work begins."""


class InputError(ValueError):
    """Input that breaks a stated rule; the command line ends with exit code 2.

    The message states the rule in backticks, the offending value, and what to do.
    """
