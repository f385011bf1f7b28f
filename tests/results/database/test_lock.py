import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sharedattn.errors import InputError
from sharedattn.results.database.lock import file_lock, holder_of_file, lock_file

_HOLDER = """
import sys
from pathlib import Path
from sharedattn.results.database.lock import file_lock

with file_lock(Path(sys.argv[1]), "digits"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_one_file_a_study_beside_the_database(tmp_path: Path) -> None:
    database = tmp_path / "study.db"
    # By sha256sum, of the name: a study's name may hold what a file's name may not.
    assert lock_file(database, "digits") == tmp_path / "study.db.cc6b6bad31a0.lock"
    assert lock_file(database, "a/b").parent == tmp_path


def test_the_lock_names_its_holder_and_goes_with_it(tmp_path: Path) -> None:
    database = tmp_path / "study.db"
    assert holder_of_file(database, "digits") is None
    assert not lock_file(database, "digits").exists()
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None and holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"'digits' is being searched by process {holder.pid};"):
        with file_lock(database, "digits"):
            pass
    assert holder_of_file(database, "digits") == f"process {holder.pid}"
    with file_lock(database, "flowers"):
        pass
    holder.kill()
    holder.communicate()
    assert holder_of_file(database, "digits") is None
    with file_lock(database, "digits"):
        pass


def test_a_look_at_the_holder_keeps_no_driver_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "study.db"
    with file_lock(database, "digits"):
        pass
    looker = os.open(lock_file(database, "digits"), os.O_RDONLY)
    fcntl.flock(looker, fcntl.LOCK_SH)
    monkeypatch.setattr("sharedattn.results.database.lock.time.sleep", lambda _: os.close(looker))
    with file_lock(database, "digits"):
        assert holder_of_file(database, "digits") == f"process {os.getpid()}"


def test_an_error_inside_frees_the_lock(tmp_path: Path) -> None:
    database = tmp_path / "study.db"
    with pytest.raises(KeyError), file_lock(database, "digits"):
        raise KeyError
    with file_lock(database, "digits"):
        pass


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the lock file .* cannot be written: No such file"):
        with file_lock(tmp_path / "nowhere" / "study.db", "digits"):
            pass


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    database = tmp_path / "study.db"
    reads, writes = os.pipe()
    with file_lock(database, "digits"):
        child = os.fork()
        if not child:  # as a loader's worker does: it lives on, with a copy of the open file
            os.close(writes)
            os.read(reads, 1)
            os._exit(0)
    try:
        with file_lock(database, "digits"):
            pass
    finally:
        os.close(writes)
        os.close(reads)
        os.waitpid(child, 0)
