"""Migrations and models agree, and databases of every older version come up to date."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine

from results import migrations
from results.models import Base
from results.records import SpecRecord, TrialState
from results.store import Store
from sharedattn.errors import InputError

SCHEMAS = Path(__file__).parent / "schemas"


def differences(engine: Engine) -> list[object]:
    options = {"version_table": migrations.VERSION_TABLE, "compare_type": True}
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, Base.metadata))


def old_database(path: Path, revision: str) -> str:
    """A database as a package of that version left it, with one study and one complete trial."""
    connection = sqlite3.connect(path)
    connection.executescript((SCHEMAS / f"{revision}.sql").read_text(encoding="utf-8"))
    connection.close()
    return f"sqlite:///{path}"


def test_the_head_is_the_newest_migration() -> None:
    assert migrations.known_revisions()[-1] == migrations.HEAD


def test_migrations_make_what_the_models_say(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    Store.open(url, create=True).close()
    engine = create_engine(url)
    assert differences(engine) == []
    engine.dispose()


def test_the_comparison_sees_a_difference(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    Store.open(url, create=True).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE trials DROP COLUMN reused")
    assert len(differences(engine)) == 1
    engine.dispose()


@pytest.mark.parametrize("revision", migrations.known_revisions()[:-1])
def test_an_old_database_comes_up_to_date_and_keeps_its_rows(
    tmp_path: Path,
    revision: str,
    make_spec: Callable[..., SpecRecord],
) -> None:
    url = old_database(tmp_path / "old.db", revision)
    with Store.open(url) as store:
        study = store.study("digits")
        (row,) = store.trials(study)
        assert (row.state, row.top1, row.placement) == (TrialState.COMPLETE, 0.875, "V2L1")
        assert row.evaluation_key is not None
        assert store.find_evaluation(row.evaluation_key) is not None
        with store.drive(study) as driver:
            driver.begin_trial(number=1, spec=make_spec("V1"))
    engine = create_engine(url)
    assert differences(engine) == []
    engine.dispose()


def test_an_old_database_is_not_upgraded_by_a_reader(tmp_path: Path) -> None:
    url = old_database(tmp_path / "old.db", "0001")
    before = (tmp_path / "old.db").read_bytes()
    with pytest.raises(
        InputError, match=f"has schema {migrations.HEAD}.*is older and opened for reading"
    ):
        Store.open(url, read_only=True)
    assert (tmp_path / "old.db").read_bytes() == before


def test_an_upgrade_that_fails_leaves_the_old_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = old_database(tmp_path / "old.db", "0001")
    upgrade = migrations.upgrade

    def upgrade_and_die(connection: migrations.Connection) -> None:
        upgrade(connection)
        raise KeyboardInterrupt

    monkeypatch.setattr(migrations, "upgrade", upgrade_and_die)
    with pytest.raises(KeyboardInterrupt):
        Store.open(url)
    monkeypatch.undo()
    connection = sqlite3.connect(tmp_path / "old.db")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    version = connection.execute(f"SELECT version_num FROM {migrations.VERSION_TABLE}").fetchall()
    connection.close()
    assert "front_snapshots" not in tables and version == [("0001",)]
    with Store.open(url) as store:
        assert len(store.studies()) == 1
