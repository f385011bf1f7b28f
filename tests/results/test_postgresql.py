"""The store on a PostgreSQL server: an empty database, named by the environment, is needed."""

import os
from collections.abc import Callable, Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from results import migrations
from results.database import parse_url
from results.errors import StorageError
from results.models import Base
from results.records import EvaluationRecord, SpecRecord, StudyRecord, TrialState
from results.store import Store
from sharedattn.errors import InputError

URL = os.environ.get("SHAREDATTN_POSTGRES_URL", "")

pytestmark = pytest.mark.skipif(not URL, reason="SHAREDATTN_POSTGRES_URL is not set")


@pytest.fixture
def server() -> Iterator[Store]:
    with Store.open(URL, create=True) as store:
        yield store
    engine = create_engine(parse_url(URL))
    with engine.begin() as connection:
        Base.metadata.drop_all(connection)
        connection.exec_driver_sql(f"DROP TABLE {migrations.VERSION_TABLE}")
    engine.dispose()


def test_migrations_make_what_the_models_say(server: Store) -> None:
    engine = create_engine(parse_url(URL))
    options = {"version_table": migrations.VERSION_TABLE, "compare_type": True}
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_a_study_is_driven_by_one_and_read_by_all(
    server: Store,
    make_study: Callable[..., StudyRecord],
    make_spec: Callable[..., SpecRecord],
    make_evaluation: Callable[..., EvaluationRecord],
) -> None:
    study = server.get_or_create_study(make_study())
    spec = make_spec(macs=5 * 10**12)  # more than 32 bits
    with server.drive(study) as driver, Store.open(URL, read_only=True) as reader:
        with pytest.raises(InputError, match="a study has one driver.*another session"):
            with reader.drive(study):
                pass
        trial_id = driver.begin_trial(number=0, spec=spec, searcher_attributes={"parent:0": [1]})
        driver.finish_trial(trial_id, make_evaluation(spec))
        (row,) = reader.trials(study)
        assert (row.state, row.macs, row.top1) == (TrialState.COMPLETE, 5 * 10**12, 0.875)
        assert reader.searcher_attributes(study) == {"parent:0": [1]}
    with server.drive(study):
        pass


def test_a_reader_cannot_write(server: Store, make_study: Callable[..., StudyRecord]) -> None:
    with Store.open(URL, read_only=True) as reader:
        with pytest.raises(StorageError, match="read-only transaction"):
            reader.get_or_create_study(make_study())
