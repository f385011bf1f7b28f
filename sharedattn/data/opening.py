"""Open data: the embedded data, a named data set, or a folder of images."""

from __future__ import annotations

from functools import lru_cache

from sharedattn.data.source import DataConfig, DataSource
from sharedattn.tasks import CLASSIFY, DENOISE


@lru_cache(maxsize=4)
def open_data(config: DataConfig) -> DataSource:
    """Open a data set; within one process, equal configs give the same object.

    Args:
        config: configuration of the data.

    Returns:
        The data, with fixed splits.

    Raises:
        InputError: the data is absent, cannot be read, or does not fit the config.
    """
    # Imported here, since timm's data package takes a second that embedded data does not need.
    if config.name == "digit-pairs":
        from sharedattn.data.digit_pairs import DigitPairs

        return DigitPairs(config)
    if config.name == "digit-count":
        from sharedattn.data.digit_count import DigitCount

        return DigitCount(config)
    if config.name == "digits":
        from sharedattn.data.whole_digits import Digits

        return Digits(config)
    if config.task == DENOISE:
        from sharedattn.data.unlabelled import UnlabelledData

        return UnlabelledData(config)
    if config.task != CLASSIFY:
        from sharedattn.data.dense import DenseData

        return DenseData(config)
    from sharedattn.data.images import ImageData

    return ImageData(config)


def reopen_data(config: DataConfig) -> DataSource:
    """Open a data set afresh, without the cache; otherwise as `open_data`."""
    open_data.cache_clear()
    return open_data(config)
