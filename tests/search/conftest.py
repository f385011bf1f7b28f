"""Worker processes import the fake evaluators by name, so their folder is put on the path.

So is the folder of the tiny backbones, which tests on several floors share.
"""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent / "sharedattn")]


@pytest.fixture
def sigint_is_heeded() -> Iterator[None]:
    """Ctrl-C raises, also where whatever started the tests in the background had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
