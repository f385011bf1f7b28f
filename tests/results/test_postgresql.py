"""What is PostgreSQL's alone: lost connections, two drivers, rights, and secrets.

What both databases have in common is in test_store.py.
"""

from __future__ import annotations

import itertools
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from cutting_proxy import CuttingProxy, Moment
from postgresql_server import PASSWORD
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import OperationalError

from sharedattn.errors import InputError
from sharedattn.results.database import engine as database
from sharedattn.results.database import migrations
from sharedattn.results.database import retry as reconnecting
from sharedattn.results.database.engine import parse_url
from sharedattn.results.database.errors import StorageError
from sharedattn.results.database.store import Store
from sharedattn.results.database.upserts import insert_or_find
from sharedattn.results.database.writing import StudyWriter
from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records import (
    AttemptOutcome,
    EpochMetrics,
    EvaluationRecord,
    FrontSnapshot,
    SpecRecord,
    Study,
    StudyRecord,
    TrialRole,
    TrialState,
)
from sharedattn.results.report import write_report
from sharedattn.search.provenance import provenance

if TYPE_CHECKING:
    from postgresql_server import PostgreSQLServer

pytestmark = pytest.mark.slow


@pytest.fixture
def store(postgresql_url: str) -> Iterator[Store]:
    with Store.open(postgresql_url, create=True) as opened:
        yield opened


@pytest.fixture
def study(store: Store, make_study: Callable[..., StudyRecord]) -> Study:
    return store.get_or_create_study(make_study())


@pytest.fixture
def proxy(postgresql_server: PostgreSQLServer) -> Iterator[CuttingProxy]:
    with CuttingProxy(postgresql_server.port) as opened:
        yield opened


@pytest.fixture
def proxied(postgresql_url: str, proxy: CuttingProxy, store: Store) -> Iterator[Store]:
    """The same database by a line that can be cut."""
    url = parse_url(postgresql_url).set(port=proxy.port).render_as_string(hide_password=False)
    with Store.open(url) as opened:
        yield opened


def end_sessions(server: PostgreSQLServer, application: str) -> int:
    """End the sessions of an application's name; how many there were."""
    return len(
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE application_name = '{application}'"
        )
    )


class TestDrivers:
    def test_a_second_driver_is_told_who_holds_the_study(
        self, store: Store, study: Study, postgresql_url: str, postgresql_server: PostgreSQLServer
    ) -> None:
        with store.drive(study), Store.open(postgresql_url, read_only=True) as second:
            ((pid, since),) = postgresql_server.execute(
                "SELECT pid, to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') "
                "FROM pg_stat_activity WHERE application_name = 'sharedattn digits'"
            )
            holder = f"pid {pid} at 127.0.0.1 since {since} UTC"
            with pytest.raises(InputError, match=f"'digits' is being searched by {holder}; wait"):
                with second.drive(study):
                    pass
            assert second.trials.of(study) == []
        with store.drive(study):
            pass

    def test_who_may_not_see_the_holder_is_told_its_user(
        self, store: Store, study: Study, postgresql_url: str, postgresql_server: PostgreSQLServer
    ) -> None:
        name = str(parse_url(postgresql_url).database)
        with make_role(postgresql_server, name, "SELECT, INSERT, UPDATE") as role:
            url = postgresql_server.url(name, user=role, password="x")
            with store.drive(study), Store.open(url) as second:
                with pytest.raises(
                    InputError, match=r"searched by pid \d+ of user postgres; wait"
                ):
                    with second.drive(study):
                        pass

    def test_drivers_that_write_the_same_rows_at_once_share_them(
        self,
        store: Store,
        make_study: Callable[..., StudyRecord],
        make_spec: Callable[..., SpecRecord],
        make_evaluation: Callable[..., EvaluationRecord],
    ) -> None:
        studies = [store.get_or_create_study(make_study(name=n)) for n in ("digits", "flowers")]
        spec = make_spec()
        evaluation = make_evaluation(spec)
        with store.drive(studies[0]) as first, store.drive(studies[1]) as second:
            first_id = first.begin_trial(number=0, spec=make_spec("V1"))
            begun: list[int] = []
            thread = threading.Thread(
                target=lambda: begun.append(second.begin_trial(number=0, spec=spec))
            )
            with store.database.writing() as connection:
                columns = {name: getattr(spec, name) for name in SpecRecord.__dataclass_fields__}
                _, was_there = insert_or_find(connection, "specs", **columns)
                thread.start()
                time.sleep(0.3)
                assert thread.is_alive() and not begun  # it waits for this transaction
            thread.join()
            assert not was_there and store.spec(spec.key) == spec
            second.finish_trial(begun[0], evaluation, attempt=1)
            first.fail_trial(first_id, "no", attempt=1)
            again = replace(evaluation, top1=0.75)
            first.finish_trial(first.begin_trial(number=1, spec=spec), again, attempt=1)
        rows = [store.trials.of(study)[-1] for study in studies]
        assert [(row.reused, row.top1) for row in rows] == [(True, 0.75), (False, 0.75)]
        assert store.other_studies_with(evaluation.identity.key, studies[0])

    def test_a_driver_whose_session_ended_goes_on_with_the_lock_taken_again(
        self,
        store: Store,
        study: Study,
        postgresql_server: PostgreSQLServer,
        make_spec: Callable[..., SpecRecord],
    ) -> None:
        with store.drive(study) as driver:
            assert end_sessions(postgresql_server, "sharedattn digits") == 1
            driver.begin_trial(number=0, spec=make_spec())
            with pytest.raises(InputError, match="is being searched by"):
                with store.drive(study):
                    pass
        assert [row.number for row in store.trials.of(study)] == [0]

    def test_a_driver_that_was_cut_off_names_the_one_that_has_begun_since(
        self,
        store: Store,
        study: Study,
        postgresql_server: PostgreSQLServer,
        make_spec: Callable[..., SpecRecord],
    ) -> None:
        with store.drive(study) as driver:
            end_sessions(postgresql_server, "sharedattn digits")
            with store.drive(study) as successor:
                with pytest.raises(StorageError, match="'digits' is being searched by pid"):
                    driver.begin_trial(number=0, spec=make_spec())
                successor.begin_trial(number=0, spec=make_spec())
            # The lock is free again, but what this driver knows of the study is out of date.
            with pytest.raises(StorageError, match="has begun to drive this study"):
                driver.begin_trial(number=1, spec=make_spec())
        assert [row.number for row in store.trials.of(study)] == [0]

    def test_another_driver_cannot_begin_while_a_write_is_on_its_way(
        self, store: Store, study: Study, make_spec: Callable[..., SpecRecord]
    ) -> None:
        """On a server that forgot the lock: the epoch's row orders them."""
        with store.drive(study) as driver:
            successors: list[StudyWriter] = []

            def take_over() -> None:
                successors.append(StudyWriter(store.database.writing, study.id))

            thread = threading.Thread(target=take_over)

            def write(connection: Any) -> int:
                thread.start()
                time.sleep(0.3)
                assert thread.is_alive() and not successors
                return 7

            assert driver._fence.commit(write, lambda _: 0) == 7
            thread.join()
            with pytest.raises(StorageError, match="has begun to drive this study"):
                driver.finish_study()
            successors[0].finish_study()


class TestLostConnections:
    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_a_line_cut_at_any_message_leaves_each_write_done_once(
        self,
        moment: Moment,
        proxied: Store,
        proxy: CuttingProxy,
        study: Study,
        make_spec: Callable[..., SpecRecord],
        make_evaluation: Callable[..., EvaluationRecord],
    ) -> None:
        """Each write of a driver, cut at its first message, its second ..., and at its COMMIT."""
        numbers = itertools.count()
        with proxied.drive(study) as driver:
            specs: dict[int, SpecRecord] = {}

            def begin() -> int:
                number = next(numbers)
                spec = make_spec(f"V{number + 1}")
                trial_id = driver.begin_trial(
                    number=number, spec=spec, searcher_attributes={"begun": number}
                )
                specs[trial_id] = spec
                return trial_id

            def finish(trial_id: int) -> None:
                snapshot = FrontSnapshot(num_complete=1, members=(0,), hypervolume=0.5)
                evaluation = make_evaluation(specs[trial_id])
                driver.finish_trial(trial_id, evaluation, attempt=1, snapshot=snapshot)

            metrics = EpochMetrics(1, 0.5, 1.0)
            writes: dict[str, Callable[[int], object]] = {
                "begin": lambda _: begin(),
                "finish": finish,
                "report": lambda trial: driver.report_rung(trial, metrics, attempt=1),
                "prune": lambda trial: driver.prune_trial(trial, metrics, attempt=1),
                "fail": lambda trial: driver.fail_trial(trial, "no", attempt=1),
                "restart": lambda trial: driver.restart_trial(trial, attempt=1),
                "totals": lambda _: driver.set_totals(num_trials=48, confirm_seeds=1),
            }
            done: dict[int, tuple[str, object]] = {}
            for name, write in writes.items():
                for message in itertools.count(1):
                    trial_id = begin()
                    proxy.cut(message, moment)
                    done[trial_id] = name, write(trial_id)
                    if not proxy.cut_message:
                        break
                assert message > 3  # BEGIN, the epoch, COMMIT at least
                # By its name: in how many messages a write comes varies from one to the next.
                trial_id = begin()
                proxy.cut(1, moment, word=b"COMMIT\0")
                done[trial_id] = name, write(trial_id)
                assert proxy.cut_message

        rows = {row.id: row for row in proxied.trials.of(study)}
        assert [row.number for row in rows.values()] == list(range(next(numbers)))
        states = {
            "begin": TrialState.RUNNING,
            "finish": TrialState.COMPLETE,
            "report": TrialState.RUNNING,
            "prune": TrialState.PRUNED,
            "fail": TrialState.FAILED,
            "restart": TrialState.RUNNING,
            "totals": TrialState.RUNNING,
        }
        rungs = {row.number: row.goes_on for row in proxied.trials.rung_reports(study)}
        for trial_id, (name, returned) in done.items():
            row = rows[trial_id]
            assert row.state is states[name]
            assert (row.top1 == 0.875) == (name == "finish") and not row.reused
            assert rungs.get(row.number) == {"report": True, "prune": False}.get(name)
            outcomes = [attempt.outcome for attempt in proxied.trials.attempts(trial_id)]
            if name == "restart":
                assert returned == 2 and outcomes == [AttemptOutcome.LOST, None]
            else:
                assert len(outcomes) == 1
            if name == "begin":
                assert isinstance(returned, int) and rows[returned].number == row.number + 1
        assert proxied.study("digits").record.num_trials == 48

    def test_a_former_session_that_the_server_still_keeps_is_ended(
        self,
        proxied: Store,
        proxy: CuttingProxy,
        study: Study,
        postgresql_server: PostgreSQLServer,
        make_spec: Callable[..., SpecRecord],
    ) -> None:
        numbers = itertools.count()
        with proxied.drive(study) as driver:
            for message in itertools.count(1):
                # As behind a router that died: the server waits for the rest of what was begun,
                # first the lock that is taken again, then the write.
                end_sessions(postgresql_server, "sharedattn digits")
                proxy.cut(message, "half")
                driver.begin_trial(number=next(numbers), spec=make_spec())
                if not proxy.cut_message:
                    break
            # The last one, and such as were cut before they had a name or the lock.
            assert end_sessions(postgresql_server, "sharedattn digits") >= 1
        assert message > 9
        assert [row.number for row in proxied.trials.of(study)] == list(range(next(numbers)))

    def test_reads_are_made_again_and_blocks_of_reads_as_a_whole(
        self,
        proxied: Store,
        proxy: CuttingProxy,
        study: Study,
        make_spec: Callable[..., SpecRecord],
    ) -> None:
        with proxied.drive(study) as driver:
            trial_id = driver.begin_trial(number=0, spec=make_spec())
            driver.report_rung(trial_id, EpochMetrics(1, 0.5, 1.0), attempt=1)
        reads: list[Callable[[], object]] = [
            proxied.studies,
            lambda: proxied.study("digits"),
            lambda: proxied.trials.of(study),
            lambda: proxied.trials.parameters(study),
            lambda: proxied.trials.rung_reports(study),
            lambda: proxied.trials.counts(study, TrialRole.SEARCH),
            lambda: proxied.trials.attempts(trial_id),
            lambda: proxied.snapshots(study),
            lambda: proxied.searcher_attributes(study),
            lambda: proxied.find_evaluation("e" * 64),
            lambda: proxied.other_studies_with("e" * 64, study),
            lambda: proxied.spec(make_spec().key),
            lambda: proxied.get_or_create_study(study.record),
            lambda: StudySummary.read(proxied, study),
        ]
        for read in reads:
            expected = read()
            proxy.cut(1, "before")
            assert read() == expected and proxy.cut_message
        # At its second message a summary is in the midst of its block.
        proxy.cut(2, "after")
        assert StudySummary.read(proxied, study).rows == proxied.trials.of(study)
        assert proxy.cut_message

    def test_a_block_of_reads_that_loses_its_connection_is_an_error(
        self, proxied: Store, proxy: CuttingProxy, study: Study
    ) -> None:
        with pytest.raises(StorageError, match="cannot be reached.*run the same command again"):
            with proxied.database.consistent():
                proxied.trials.of(study)
                proxy.cut(1, "before")
                proxied.trials.of(study)
        assert proxied.trials.of(study) == []

    def test_a_server_that_stays_away_is_an_error_that_says_what_to_do(
        self,
        store: Store,
        study: Study,
        postgresql_server: PostgreSQLServer,
        make_spec: Callable[..., SpecRecord],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with store.drive(study) as driver:
            postgresql_server.stop()
            message = r"me:\*\*\*|postgres:\*\*\*@127.0.0.1.*cannot be reached.*same command again"
            try:
                with monkeypatch.context() as patch:
                    patch.setattr(reconnecting, "PATIENCE_S", 0.5)
                    for access in (lambda: driver.finish_study(), lambda: store.trials.of(study)):
                        with pytest.raises(StorageError, match=message) as caught:
                            access()
                        assert "s3cret" not in str(caught.value)
            finally:
                postgresql_server.start()
            driver.begin_trial(number=0, spec=make_spec())
        assert len(store.trials.of(study)) == 1

    def test_a_server_that_restarts_under_a_search_loses_no_trial(
        self,
        store: Store,
        study: Study,
        postgresql_server: PostgreSQLServer,
        make_spec: Callable[..., SpecRecord],
        make_evaluation: Callable[..., EvaluationRecord],
    ) -> None:
        """Restarts, a crash, ended sessions while a driver writes: each trial is there once."""
        is_over = threading.Event()
        begun: dict[int, int] = {}
        failures: list[BaseException] = []

        def search() -> None:
            try:
                with store.drive(study) as driver:
                    for number in itertools.count():
                        spec = make_spec(f"V{number + 1}")
                        begun[number] = driver.begin_trial(
                            number=number, spec=spec, searcher_attributes={"begun": number}
                        )
                        assert store.find_evaluation(make_evaluation(spec).identity) is None
                        driver.finish_trial(begun[number], make_evaluation(spec), attempt=1)
                        if is_over.is_set():
                            return
            except BaseException as error:
                failures.append(error)

        rng = random.Random(0)
        thread = threading.Thread(target=search)
        thread.start()
        num_ended = 0
        for disturb in (
            lambda: postgresql_server.restart("fast"),
            lambda: postgresql_server.restart("immediate"),
            *[lambda: end_sessions(postgresql_server, "sharedattn digits")] * 3,
            lambda: postgresql_server.restart("fast"),
        ):
            # Once the search has gone on, at any moment of a trial.
            num_before, waited_s = len(begun), 0.0
            while thread.is_alive() and len(begun) < num_before + 3 and waited_s < 30:
                waited_s += 0.01
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 0.02))
            num_ended += disturb() or 0
        is_over.set()
        thread.join(60)
        assert not thread.is_alive() and failures == [] and num_ended == 3
        rows = store.trials.of(study)
        assert [row.number for row in rows] == list(range(len(begun))) and len(rows) >= 18
        assert [row.id for row in rows] == list(begun.values())
        assert {row.state for row in rows} == {TrialState.COMPLETE}
        assert not any(row.reused for row in rows)
        assert all(len(store.trials.attempts(row.id)) == 1 for row in rows)
        assert store.searcher_attributes(study) == {"begun": len(rows) - 1}

    def test_a_server_that_is_starting_is_waited_for(
        self, store: Store, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        words = "connection failed: FATAL:  the database system is starting up"
        starting = OperationalError("SELECT", {}, psycopg.OperationalError(words))
        look_at = database._look_at
        answers = iter([starting, starting])

        def look(engine: Engine, shown: str) -> database.Schema:
            error = next(answers, None)
            if error is not None:
                raise error
            return look_at(engine, shown)

        monkeypatch.setattr(database, "_look_at", look)
        Store.open(postgresql_url).close()
        assert next(answers, None) is None
        monkeypatch.setattr(reconnecting, "PATIENCE_S", 0.0)
        answers = iter([starting] * 2)
        with pytest.raises(StorageError, match=r"postgres:\*\*\*@.*system is starting up"):
            Store.open(postgresql_url)


class TestBadInput:
    """Refused at the opening, in one line, with nothing written and no password shown."""

    def refused(self, url: str, message: str, **options: bool) -> None:
        with pytest.raises(InputError, match=message) as caught:
            Store.open(url, **(options or {"create": True}))
        chain: BaseException | None = caught.value
        while chain is not None:
            assert PASSWORD not in str(chain)
            chain = chain.__cause__
        assert "\n" not in str(caught.value)

    def test_a_server_that_is_not_there(
        self, postgresql_url: str, postgresql_server: PostgreSQLServer
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            elsewhere = postgresql_server.url("postgres", port=free.getsockname()[1])
            self.refused(elsewhere, "cannot be opened.*onnection refused")
        nowhere = elsewhere.replace("127.0.0.1", "nowhere.invalid")
        self.refused(nowhere, r"postgres:\*\*\*@nowhere.invalid.* cannot be opened:")
        absent = postgresql_server.url("absent")
        self.refused(absent, 'cannot be opened.*database "absent" does not exist')
        stranger = postgresql_server.url("postgres", user="stranger")
        self.refused(stranger, 'cannot be opened.*authentication failed for user "stranger"')
        wrong = postgresql_server.url("postgres", password=f"not-{PASSWORD}")
        self.refused(wrong, 'cannot be opened.*password authentication failed for user "postgres"')
        self.refused(f"{postgresql_url}?sslmode=oops", "cannot be opened.*invalid sslmode")
        self.refused(f"{postgresql_url}?oops={PASSWORD}", 'cannot be opened.*option "oops"')

    def test_a_url_that_is_refused_does_not_show_its_password(self) -> None:
        for url, message in (
            (f"postgresql://me:{PASSWORD}@host:port/db", "`storage` is a URL"),
            (f"postgresql://me:{PASSWORD}", "`storage` is a URL"),
            (f"mysql://me:{PASSWORD}@host/db", "sqlite:///FILE or postgresql"),
            (f"postgresql:/me:{PASSWORD}@host/db password={PASSWORD}", "`storage` is a URL"),
            (f"postgresql://me:at@{PASSWORD}@host/db", "more than one @.*as %40"),
            (f"host=h user=me password={PASSWORD}", "`storage` is a URL"),
        ):
            self.refused(url, message)

    def test_another_program_s_tables_and_a_newer_schema(
        self, store: Store, postgresql_url: str, postgresql_server: PostgreSQLServer
    ) -> None:
        name = str(parse_url(postgresql_url).database)
        table = migrations.VERSION_TABLE
        postgresql_server.execute(f"UPDATE {table} SET version_num = '9999'", name)
        for read_only in (False, True):
            self.refused(postgresql_url, "has schema 9999, newer than", read_only=read_only)
        postgresql_server.execute(f"DROP TABLE {table}", name)
        for read_only in (False, True):
            self.refused(postgresql_url, "not one of sharedattn's.*attempts", read_only=read_only)

    def test_an_empty_database_is_not_filled_by_readers(
        self, postgresql_url: str, postgresql_server: PostgreSQLServer
    ) -> None:
        for options in ({"create": False}, {"read_only": True}):
            self.refused(postgresql_url, "is empty; name the one", **options)
        assert tables_of(postgresql_server, postgresql_url) == set()

    def test_a_user_without_rights(
        self, store: Store, study: Study, postgresql_url: str, postgresql_server: PostgreSQLServer
    ) -> None:
        name = str(parse_url(postgresql_url).database)
        with make_role(postgresql_server, name, "SELECT") as role:
            url = postgresql_server.url(name, user=role, password="x")
            self.refused(url, "the user may not write.*does not grant INSERT, UPDATE on attempts")
            with Store.open(url, read_only=True) as reader:
                assert reader.trials.of(study) == []
                with pytest.raises(StorageError, match="read-only transaction"):
                    reader.get_or_create_study(study.record)
        with make_role(postgresql_server, name, "SELECT, INSERT, UPDATE") as role:
            url = postgresql_server.url(name, user=role, password="x")
            with Store.open(url) as writer, writer.drive(study) as driver:
                driver.finish_study()
            postgresql_server.execute(f"REVOKE ALL ON SEQUENCE trials_id_seq FROM {role}", name)
            self.refused(url, "the user may not write.*does not grant USAGE on trials_id_seq")
            Store.open(url, read_only=True).close()
        with make_role(postgresql_server, name) as role:
            url = postgresql_server.url(name, user=role, password="x")
            self.refused(url, "cannot be opened.*permission denied", read_only=True)

    def test_a_user_who_may_not_upgrade(
        self, postgresql_url: str, postgresql_server: PostgreSQLServer
    ) -> None:
        engine = create_engine(parse_url(postgresql_url))
        with engine.begin() as connection:
            migrations.upgrade(connection, "0003")
        engine.dispose()
        before = tables_of(postgresql_server, postgresql_url)
        name = str(parse_url(postgresql_url).database)
        with make_role(postgresql_server, name, "SELECT, INSERT, UPDATE") as role:
            url = postgresql_server.url(name, user=role, password="x")
            self.refused(url, "cannot be opened.*must be owner of table studies")
        assert tables_of(postgresql_server, postgresql_url) == before

    def test_a_user_who_may_make_no_tables(
        self, postgresql_url: str, postgresql_server: PostgreSQLServer
    ) -> None:
        name = str(parse_url(postgresql_url).database)
        with make_role(postgresql_server, name) as role:
            url = postgresql_server.url(name, user=role, password="x")
            self.refused(url, "may not make tables in the empty database.*not grant CREATE")

    def test_a_database_that_is_read_only(
        self, store: Store, study: Study, postgresql_url: str, postgresql_server: PostgreSQLServer
    ) -> None:
        name = parse_url(postgresql_url).database
        postgresql_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        self.refused(postgresql_url, "is read-only: default_transaction_read_only is on")
        with Store.open(postgresql_url, read_only=True) as reader:
            assert reader.study("digits") == study

    def test_a_standby_server(
        self, store: Store, study: Study, postgresql_url: str, postgresql_server: PostgreSQLServer
    ) -> None:
        signal = postgresql_server.data / "standby.signal"
        postgresql_server.stop()
        signal.touch()
        postgresql_server.start()
        try:
            self.refused(postgresql_url, "is read-only: it is a standby server")
            with Store.open(postgresql_url, read_only=True) as reader:
                assert StudySummary.read(reader, study).study == study
        finally:
            postgresql_server.stop()
            signal.unlink()
            postgresql_server.start()


class TestSecrets:
    def test_no_password_is_stored_or_reported(
        self,
        store: Store,
        postgresql_url: str,
        postgresql_server: PostgreSQLServer,
        make_study: Callable[..., StudyRecord],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        assert PASSWORD in postgresql_url and PASSWORD not in store.url
        arguments = ["search", "--storage", postgresql_url, f"--storage={postgresql_url}"]
        monkeypatch.setattr(sys, "argv", ["sharedattn", *arguments])
        study = store.get_or_create_study(make_study(provenance=provenance()))
        command = study.record.provenance["command"]
        assert command.count("postgresql://postgres:***@127.0.0.1") == 2
        path = tmp_path / "report.html"
        write_report(path, StudySummary.read(store, study), convention="none")
        assert "postgresql://postgres:***@" in path.read_text(encoding="utf-8")
        assert PASSWORD not in path.read_text(encoding="utf-8")
        assert PASSWORD not in repr(store.database.engine) and PASSWORD not in repr(store)
        name = str(parse_url(postgresql_url).database)
        for table in tables_of(postgresql_server, postgresql_url):
            assert PASSWORD not in str(postgresql_server.execute(f"SELECT * FROM {table}", name))

    def test_a_password_may_stand_where_postgresql_looks_for_it(
        self,
        store: Store,
        postgresql_url: str,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        without = postgresql_url.replace(f":{PASSWORD}", "")
        with pytest.raises(InputError, match="cannot be opened.*no password supplied"):
            Store.open(without)
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
        Store.open(without).close()
        monkeypatch.delenv("PGPASSWORD")
        passwords = tmp_path / "pgpass"
        passwords.write_text(f"127.0.0.1:*:*:postgres:{PASSWORD}\n", encoding="utf-8")
        passwords.chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(passwords))
        Store.open(without).close()


def tables_of(server: PostgreSQLServer, url: str) -> set[str]:
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    return {table for (table,) in server.execute(query, str(parse_url(url).database))}


@contextmanager
def make_role(server: PostgreSQLServer, database: str, rights: str = "") -> Iterator[str]:
    """A user of password "x" with some rights on all tables of a database."""
    role = f"role_of_{database}"
    server.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    if rights:
        server.execute(f"GRANT {rights} ON ALL TABLES IN SCHEMA public TO {role}", database)
        server.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}", database)
    try:
        yield role
    finally:
        server.execute(f"DROP OWNED BY {role}", database)
        server.execute(f"DROP ROLE {role}")
