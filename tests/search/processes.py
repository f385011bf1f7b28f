"""Whether processes of this machine live, for tests that start and kill them."""

import time
from pathlib import Path

# Until a process has begun or gone, on a machine with much else to do.
LONGEST_S = 300.0


def is_alive(pid):
    """Whether a process is there and has not ended; one that nobody has waited for yet has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the latter between opening and reading
        return False
    return state not in "ZX"


def all_end(pids):
    """Whether all of them end, at the latest after a while."""
    deadline = time.monotonic() + LONGEST_S
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(is_alive, pids))
