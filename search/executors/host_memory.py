"""Memory that a training frees, kept for its next step."""

from __future__ import annotations

import ctypes

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, where its C library is glibc.

    Otherwise glibc returns large tensors to the system and takes them again in each step, page by
    page, which can cost more than the arithmetic of a gate (`benchmarks/gate_step.py`). Other C
    libraries, and GPUs, are left as they are.

    Returns:
        Whether it is so from now on.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # no mallopt, or no program to look for it in
        return False
    never = -1  # of size_t, so above every size
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, never))
