"""Whose temporaries are whose, and what a write that fails or is killed leaves."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sharedattn.results.artifacts import atomic as temporary
from sharedattn.results.artifacts.atomic import (
    MAX_AGE_S,
    atomic_write,
    is_orphan,
    orphans,
    temporary_name,
)


def test_names_are_hidden_and_say_who_and_since_when() -> None:
    before = int(time.time())
    name = temporary_name("a.b.pt", "old")
    assert name.startswith(".a.b.pt.old.")
    host, process_id, since_s = name.rsplit(".", 3)[1:]
    assert int(process_id) == os.getpid() and before <= int(since_s) <= time.time()
    namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    assert host.endswith(f"-{int(namespace):x}")
    # The longest name that a file may have, and a file of it.
    assert len(temporary_name("x" * 180)) <= 255


def test_a_living_process_keeps_its_own_and_a_dead_one_nothing(
    orphan_name: Callable[..., str],
) -> None:
    mine, dead = temporary_name("name"), orphan_name("name")
    first_process, too_large = (
        mine.replace(f".{os.getpid()}.", f".{process_id}.") for process_id in (1, 2**40)
    )
    assert [is_orphan(name) for name in (mine, first_process)] == [False, False]
    assert [is_orphan(name) for name in (dead, too_large)] == [True, True]
    for other in ("name", ".name", dead[1:], dead.rpartition(".")[0], f"{dead}.txt"):
        assert not is_orphan(other)


def test_what_another_host_is_writing_is_given_a_day(
    orphan_name: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(temporary, "_host", lambda: "elsewhere-f00")
        theirs = orphan_name("name")
    assert ".elsewhere-f00." in theirs
    assert not is_orphan(theirs)
    now = time.time()
    for age_s, given_up in ((MAX_AGE_S - 60, False), (MAX_AGE_S + 60, True)):
        monkeypatch.setattr(time, "time", lambda age_s=age_s: now + age_s)
        assert is_orphan(theirs) is given_up
        # Of this host it is known: the age says nothing.
        assert not is_orphan(f"{temporary_name('name').rpartition('.')[0]}.0")


def test_orphans_of_one_name(tmp_path: Path, orphan_name: Callable[..., str]) -> None:
    assert list(orphans(tmp_path / "absent", "knee")) == []
    for name in ("knee", "knee2", "knee.old"):
        (tmp_path / orphan_name(name)).mkdir()
        (tmp_path / temporary_name(name)).mkdir()
    assert [path.name for path in orphans(tmp_path, "knee")] == [orphan_name("knee")]
    found = {path.name for path in orphans(tmp_path, r"knee(\.old)?")}
    assert found == {orphan_name("knee"), orphan_name("knee.old")}


def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")
    # The kernel itself says so, on every machine: what is written there finds no room.
    full = tmp_path / ".full"
    full.symlink_to("/dev/full")
    monkeypatch.setattr(temporary, "temporary_beside", lambda path: full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        atomic_write(path, b"new")
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_bytes() == b"old"


_KILLED_WRITING = """
import os, signal, sys
from pathlib import Path
from sharedattn.results.artifacts.atomic import atomic_write

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(*{"flush": (os, "fsync", die), "rename": (Path, "replace", die)}[sys.argv[2]])
atomic_write(Path(sys.argv[1]), b"new" * 10_000)
"""


@pytest.mark.parametrize("moment", ["flush", "rename"])
def test_a_kill_leaves_the_older_file_whole_and_an_orphan(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")
    command = [sys.executable, "-c", _KILLED_WRITING, str(path), moment]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    (orphan,) = orphans(tmp_path, "file")
    assert orphan.stat().st_size == 30_000
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
