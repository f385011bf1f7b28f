"""The one error for faulty input, raised before any work begins."""


class InputError(ValueError):
    """Invalid input; the command line then ends with exit code 2.

    The message names the argument and its value, says what is wrong, and what to do.
    """


class StartChangedError(InputError):
    """Trained weights that work starts from are not, or no longer, those that it began with.

    Every other part of the work would fail alike, until the weights are put back.
    """
