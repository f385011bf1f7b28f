"""Open data: the embedded data, a data set of torchvision, or a folder of images."""

from __future__ import annotations

from functools import lru_cache

from sharedattn.data.source import EMBEDDED, DataConfig, DataSource


@lru_cache(maxsize=4)
def open_data(config: DataConfig) -> DataSource:
    """Open a data set; in one process the same config gives the same object.

    Args:
        config: which data, at which size, cut how.

    Returns:
        The data, its splits fixed.

    Raises:
        InputError: data that is not there, cannot be read, or does not fit the config.
    """
    # Imported here since timm's data package takes a second that the embedded data saves.
    if config.name == EMBEDDED:
        from sharedattn.data.digit_pairs import DigitPairs

        return DigitPairs(config)
    from sharedattn.data.images import ImageData

    return ImageData(config)


def reopen_data(config: DataConfig) -> DataSource:
    """Open a data set as it is now, whatever was opened before; as `open_data` else."""
    open_data.cache_clear()
    return open_data(config)
