"""Migrations and models agree, and databases of every older version come up to date."""

import ast
import json
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, MetaData, create_engine

from sharedattn.errors import InputError
from sharedattn.results.database import engine as database
from sharedattn.results.database import migrations
from sharedattn.results.database.engine import parse_url
from sharedattn.results.database.models import Base
from sharedattn.results.database.store import Store
from sharedattn.results.records import EpochMetrics, LatencyRecord, SpecRecord, TrialState

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


def rows_of(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table but the version's, parents before children, by column name."""
    metadata = MetaData()
    metadata.reflect(engine)
    with engine.connect() as connection:
        return {
            table.name: [dict(row._mapping) for row in connection.execute(table.select())]
            for table in metadata.sorted_tables
            if table.name != migrations.VERSION_TABLE
        }


def rows_as_of(revision: str, folder: Path, offset: int = 0) -> dict[str, list[dict[str, Any]]]:
    """The rows that a package of that version wrote, as if they were another study's.

    Args:
        revision: the version.
        folder: for its file.
        offset: added to every row's number; also tells names and keys apart.
    """
    engine = create_engine(old_database(folder / f"{revision}.db", revision))
    tables = rows_of(engine)
    engine.dispose()
    for table, rows in tables.items():
        for row in rows:
            for column, value in row.items():
                if column == "id" or (column.endswith("_id") and value is not None):
                    row[column] = value + offset
                elif (table, column) == ("studies", "name"):
                    row[column] = f"{value}-{revision}"
                elif column == "key" and table in ("specs", "evaluations"):
                    row[column] = revision + value[len(revision) :]
    return tables


def insert_rows(engine: Engine, tables: dict[str, list[dict[str, Any]]]) -> None:
    metadata = MetaData()
    metadata.reflect(engine)
    with engine.begin() as connection:
        for name, rows in tables.items():
            if rows:
                connection.execute(metadata.tables[name].insert(), rows)


def test_the_head_is_the_newest_migration() -> None:
    assert migrations.known_revisions()[-1] == migrations.HEAD


def test_every_version_has_its_schema_frozen() -> None:
    frozen = {path.stem for path in SCHEMAS.iterdir()}
    assert frozen == set(migrations.known_revisions())


def test_a_version_imports_nothing_of_the_package() -> None:
    """What a version does is fixed, while the package goes on."""
    versions = sorted((Path(migrations.__file__).parent / "versions").glob("v*.py"))
    assert len(versions) == len(migrations.known_revisions())
    for version in versions:
        imported = set()
        for node in ast.walk(ast.parse(version.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, version.name
                imported.add((node.module or "").partition(".")[0])
        assert imported <= {"alembic", "collections", "re", "sqlalchemy"}, version.name


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


@pytest.mark.parametrize("revision", migrations.known_revisions())
def test_a_database_of_each_version_comes_up_to_date_and_keeps_its_rows(
    tmp_path: Path,
    revision: str,
    make_spec: Callable[..., SpecRecord],
    make_latency: Callable[..., LatencyRecord],
) -> None:
    url = old_database(tmp_path / "old.db", revision)
    with Store.open(url) as store:
        study = store.study("digits")
        (row,) = store.trials.of(study)
        assert (row.state, row.top1, row.placement) == (TrialState.COMPLETE, 0.875, "V2L1")
        assert (row.costs["params"], row.costs["macs"], row.seed, row.loss) == (101, 1009, 5, 0.25)
        assert row.evaluation_key is not None
        assert store.find_evaluation(row.evaluation_key) is not None
        with store.drive(study) as driver:
            trial_id = driver.begin_trial(number=1, spec=make_spec("V1"))
            driver.report_rung(trial_id, EpochMetrics(1, 0.5, 1.0), attempt=1)
            latency = make_latency()
            driver.record_latency(make_spec("V1"), latency)
        assert store.trials.rung_reports(study)[-1].number == 1
        assert store.latencies(study) == {make_spec("V1").key: latency}
        assert store.study("digits").record.latency is None
        assert [row.costs.get("latency_ms") for row in store.trials.of(study)] == [None, 2.5]
    engine = create_engine(url)
    assert differences(engine) == []
    engine.dispose()


def test_latencies_of_version_0005_are_read_and_added_to(
    tmp_path: Path,
    make_spec: Callable[..., SpecRecord],
    make_latency: Callable[..., LatencyRecord],
) -> None:
    with Store.open(old_database(tmp_path / "old.db", "0005")) as store:
        study = store.study("timed")
        assert study.record.objectives == ("top1", "latency_ms")
        assert study.record.latency == {
            "source": "network",
            "device": "a processor, 2 threads",
            "batch_size": 3,
            "max_ms": 4.5,
        }
        (row,) = store.trials.of(study)
        assert (row.top1, row.costs["latency_ms"]) == (0.875, 2.5)
        ((key, latency),) = store.latencies(study).items()
        assert key == row.spec_key == make_spec("V2L1").key
        assert (latency.latency_ms, latency.latency_source.value) == (2.5, "network")
        assert (latency.repeats, latency.batch_size, latency.peak_bytes) == (31, 3, 12345)
        assert [row.metrics.top1 for row in store.trials.rung_reports(study)] == [0.75]
        with store.drive(study) as driver:
            driver.record_latency(make_spec("V1"), make_latency(latency_ms=0.5))
        assert [r.latency_ms for r in store.latencies(study).values()] == [2.5, 0.5]


def test_an_old_database_is_not_upgraded_by_a_reader(tmp_path: Path) -> None:
    url = old_database(tmp_path / "old.db", "0001")
    before = (tmp_path / "old.db").read_bytes()
    with pytest.raises(
        InputError, match=f"older schema than {migrations.HEAD}, and is opened for reading"
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


def test_commands_of_older_versions_lose_their_passwords(tmp_path: Path) -> None:
    url = old_database(tmp_path / "old.db", "0003")
    connection = sqlite3.connect(tmp_path / "old.db")
    command = "sharedattn search --storage postgresql://me:secret@host/db --spec a@224"
    document = json.dumps({"command": command, "commit": "abc"})
    connection.execute("UPDATE studies SET provenance = ?", (document,))
    connection.commit()
    connection.close()
    with Store.open(url) as store:
        assert store.study("digits").record.provenance == {
            "command": "sharedattn search --storage postgresql://me:***@host/db --spec a@224",
            "commit": "abc",
        }


@pytest.mark.slow
def test_postgresql_comes_up_to_date_step_by_step_and_keeps_its_rows(
    postgresql_url: str, tmp_path: Path, make_spec: Callable[..., SpecRecord]
) -> None:
    """At each version the rows of that version are added, and all are there at the end."""
    engine = create_engine(parse_url(postgresql_url))
    written: dict[str, list[dict[str, Any]]] = {}
    *older, head = migrations.known_revisions()
    for step, revision in enumerate(older, start=1):
        with engine.begin() as connection:
            migrations.upgrade(connection, revision)
        tables = rows_as_of(revision, tmp_path, offset=100 * step)
        insert_rows(engine, tables)
        for name, rows in tables.items():
            written.setdefault(name, []).extend(rows)
    with Store.open(postgresql_url) as store:
        assert differences(engine) == []
        # Columns that came later aside, every row is as it was written; the one column that goes,
        # in version 0005, never had a value.
        kept = rows_of(engine)
        for name, rows in written.items():
            for row, now in zip(rows, kept[name], strict=True):
                gone = row.keys() - now.keys()
                assert {column: now[column] for column in row.keys() - gone} == {
                    column: value for column, value in row.items() if column not in gone
                }
                assert [row[column] for column in gone] == [None] * len(gone)
        assert [row["driver_write"] for row in kept["studies"]] == [0, 0, 0, 3]
        for revision in older:
            study = store.study(f"digits-{revision}")
            (row,) = store.trials.of(study)
            assert (row.state, row.top1, row.placement) == (TrialState.COMPLETE, 0.875, "V2L1")
            assert len(store.snapshots(study)) == (revision != "0001")
            with store.drive(study) as driver:
                driver.begin_trial(number=1, spec=make_spec("V1"))
    engine.dispose()


@pytest.mark.slow
@pytest.mark.parametrize("revision", [None, "0003"])
def test_of_two_that_open_an_old_database_at_once_one_upgrades_it(
    postgresql_url: str, revision: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_engine(parse_url(postgresql_url))
    if revision is not None:
        with engine.begin() as connection:
            migrations.upgrade(connection, revision)
    upgrade, spans = migrations.upgrade, []

    def upgrade_slowly(connection: migrations.Connection) -> None:
        began = time.monotonic()
        upgrade(connection)
        time.sleep(0.3)
        spans.append((began, time.monotonic()))

    monkeypatch.setattr(migrations, "upgrade", upgrade_slowly)
    # Both have looked, and seen that there is something to do, before either begins to do it.
    both_have_looked = threading.Barrier(2)
    check_rights = database._check_rights

    def check_and_wait(*arguments: Any, **options: Any) -> None:
        check_rights(*arguments, **options)
        both_have_looked.wait(60)

    monkeypatch.setattr(database, "_check_rights", check_and_wait)
    with ThreadPoolExecutor(2) as threads:
        stores = list(threads.map(lambda _: Store.open(postgresql_url, create=True), range(2)))
    (_, first_end), (second_begin, _) = sorted(spans)
    assert first_end <= second_begin
    for store in stores:
        assert store.studies() == []
        store.close()
    assert differences(engine) == []
    engine.dispose()
