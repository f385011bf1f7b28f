"""What `Store.open` opens and what it refuses, with the file left as it was."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from sharedattn.errors import InputError
from sharedattn.results.database import engine as database
from sharedattn.results.database import migrations
from sharedattn.results.database.engine import Schema, look_at, parse_url, shown_url
from sharedattn.results.database.store import Store
from sharedattn.results.records import SpecRecord, StudyRecord


def file_url(path: Path) -> str:
    return f"sqlite:///{path}"


def test_a_database_is_made_with_its_folders_and_opened_again(
    tmp_path: Path, make_study: Callable[..., StudyRecord]
) -> None:
    url = file_url(tmp_path / "out" / "deep" / "study 1 %#.db")
    with Store.open(url, create=True) as store:
        study = store.get_or_create_study(make_study())
    with Store.open(url) as store:
        assert store.study("digits") == study
    with Store.open(url, read_only=True) as store:
        assert store.study("digits") == study
    assert {path.name for path in (tmp_path / "out" / "deep").glob("*.db")} == {"study 1 %#.db"}


def test_commits_go_through_the_log_and_survive_the_process(url: str) -> None:
    with Store.open(url, create=True) as store, store.database.engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    # synchronous 1 is NORMAL.
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 1,
        "foreign_keys": 1,
        "busy_timeout": 30_000,
    }


def test_opening_a_current_database_does_not_import_alembic(url: str, tmp_path: Path) -> None:
    with Store.open(url, create=True):
        pass
    code = (
        "import sys; from sharedattn.results.database.store import Store\n"
        "Store.open(sys.argv[1]).close()\n"
        "sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, url], check=False).returncode == 0


def test_what_a_killed_creation_leaves_is_a_database_to_be_made(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    path.touch()
    with pytest.raises(InputError, match="is empty; name the one"):
        Store.open(file_url(path))
    with pytest.raises(InputError, match="is empty; name the one"):
        Store.open(file_url(path), read_only=True)
    with Store.open(file_url(path), create=True) as store:
        assert store.studies() == []


def test_a_file_that_is_not_there_is_not_made_by_readers(tmp_path: Path) -> None:
    for read_only in (False, True):
        with pytest.raises(InputError, match="there is no database file .*study.db"):
            Store.open(file_url(tmp_path / "study.db"), read_only=read_only)
    assert list(tmp_path.iterdir()) == []


def refused_untouched(path: Path, message: str) -> None:
    before = path.read_bytes()
    for options in ({}, {"create": True}, {"read_only": True}):
        with pytest.raises(InputError, match=message):
            Store.open(file_url(path), **options)
    with pytest.raises(InputError, match=message):
        look_at(file_url(path))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("the cat sat on the mat\n" * 99)
    refused_untouched(path, "cannot be opened.*file is not a database")


def test_another_program_s_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE trials (id INTEGER)")
    other.execute("CREATE TABLE alembic_version (version_num TEXT)")
    other.commit()
    other.close()
    refused_untouched(path, "not one of sharedattn's.*alembic_version, trials")


def change(url: str, statement: str) -> Path:
    """Run a statement in a database of ours, and fold its log into the file."""
    path = Path(url.removeprefix("sqlite:///"))
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    return path


def test_a_newer_schema_is_refused(url: str) -> None:
    Store.open(url, create=True).close()
    path = change(url, f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'")
    refused_untouched(path, "has schema 9999, newer than .*upgrade sharedattn")


def test_a_database_without_one_of_its_tables_is_refused(url: str) -> None:
    Store.open(url, create=True).close()
    path = change(url, "DROP TABLE front_snapshots")
    refused_untouched(path, "lacks the tables front_snapshots")


def test_a_damaged_page_is_found_before_a_driver_writes(
    url: str, make_study: Callable[..., StudyRecord], make_spec: Callable[..., SpecRecord]
) -> None:
    with Store.open(url, create=True) as store:
        study = store.get_or_create_study(make_study())
        with store.drive(study) as driver:
            for number in range(40):
                driver.begin_trial(number=number, spec=make_spec(), proposed={"a": "b" * 999})
    path = change(url, "VACUUM")
    content = bytearray(path.read_bytes())
    # The last pages hold trials; the schema, at the front, is whole.
    content[-8192:] = b"\xff" * 8192
    path.write_bytes(content)
    with pytest.raises(InputError, match="is damaged.*restore it from a copy"):
        Store.open(url)
    assert path.read_bytes() == bytes(content)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="folder .* cannot be made: Not a directory"):
        Store.open(file_url(tmp_path / "file" / "deep" / "study.db"), create=True)
    with pytest.raises(InputError, match="cannot be opened.*unable to open database file"):
        Store.open("sqlite:////proc/study.db", create=True)
    with pytest.raises(InputError, match="is not a file"):
        Store.open(file_url(tmp_path), create=True)


def test_a_look_tells_the_schema_and_makes_nothing(url: str, tmp_path: Path) -> None:
    assert look_at(file_url(tmp_path / "deep" / "study.db")) is Schema.EMPTY
    (tmp_path / "file").touch()
    assert look_at(file_url(tmp_path / "file")) is Schema.EMPTY
    with pytest.raises(InputError, match=f"folder cannot be made in {tmp_path / 'file'}; name"):
        look_at(file_url(tmp_path / "file" / "study.db"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    Store.open(url, create=True).close()
    assert look_at(url) is Schema.CURRENT
    change(url, f"UPDATE {migrations.VERSION_TABLE} SET version_num = '0001'")
    assert look_at(url) is Schema.OLDER
    with pytest.raises(InputError, match="an older schema"):
        Store.open(url, read_only=True)


def test_a_disk_that_is_full_at_the_start_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = migrations.upgrade

    def upgrade_on_a_full_disk(connection: database.Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 5")
        upgrade(connection)

    monkeypatch.setattr(migrations, "upgrade", upgrade_on_a_full_disk)
    with pytest.raises(InputError, match="cannot be opened.*disk is full"):
        Store.open(file_url(tmp_path / "study.db"), create=True)
    assert not (tmp_path / "study.db").exists()


def test_a_database_on_a_read_only_disk_is_read(
    url: str,
    tmp_path: Path,
    make_study: Callable[..., StudyRecord],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Store.open(url, create=True) as store:
        store.get_or_create_study(make_study())
    before = {path.name for path in tmp_path.iterdir()}
    # These tests may run as root, who can write anywhere: the answer is given for it.
    monkeypatch.setattr(database.os, "access", lambda path, mode: False)
    with Store.open(url, read_only=True) as store:
        assert len(store.studies()) == 1
        assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("study.db", "`storage` is a URL such as sqlite:///study.db"),
        ("", "`storage` is a URL"),
        ("mysql://host/database", "sqlite:///FILE or postgresql"),
        ("sqlite://", "`storage` of SQLite is sqlite:///FILE"),
        ("sqlite:///:memory:", "`storage` of SQLite is a file"),
    ],
)
def test_a_storage_that_is_not_supported(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Store.open(url, create=True)


def test_plain_postgresql_means_psycopg_3() -> None:
    parsed = parse_url("postgresql://me:secret@host:5433/studies")
    assert parsed == make_url("postgresql+psycopg://me:secret@host:5433/studies")


def test_a_password_is_not_shown() -> None:
    parsed = parse_url("postgresql://me:secret@host/studies")
    assert shown_url(parsed) == "postgresql+psycopg://me:***@host/studies"
    by_option = parse_url("postgresql://host/studies?user=me&password=secret&sslmode=require")
    assert by_option.query["password"] == "secret"
    assert shown_url(by_option) == "postgresql+psycopg://host/studies"


def test_postgresql_without_its_driver_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InputError, match=r"PostgreSQL requires psycopg.*sharedattn\[postgres\]"):
        Store.open("postgresql://localhost/studies")
