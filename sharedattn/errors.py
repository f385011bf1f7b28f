"""The one error for faulty input, raised before any work begins."""


class InputError(ValueError):
    """Invalid input; the command line then ends with exit code 2.

    The message names the argument and its value, says what is wrong, and what to do.
    """
