"""Freed memory is kept, counted in page faults of a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from sharedattn.search.executors import host_memory

NUM_BYTES = 41 * 2**20  # above what glibc ever takes from its heap by itself
NUM_ROUNDS = 7

SCRIPT = f"""
import resource, sys
from sharedattn.search.executors.host_memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
for number in range({NUM_ROUNDS} + 1):
    if number == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    taken = bytearray({NUM_BYTES})
    del taken
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone has it")
def test_freed_memory_is_not_taken_again_page_by_page() -> None:
    # Huge pages, where the system has them, make one fault of 512 pages.
    assert page_faults("as it is") >= NUM_ROUNDS * NUM_BYTES // 2**21
    assert page_faults("kept") < 10


@pytest.mark.parametrize("error", [OSError, TypeError, AttributeError])
def test_other_c_libraries_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def no_library(name: None) -> None:
        raise error(name)

    monkeypatch.setattr(host_memory.ctypes, "CDLL", no_library)
    assert host_memory.keep_freed_memory() is False
