"""Scripts and environments in which a search cannot run as it stands: each is told so at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sharedattn.errors import InputError
from sharedattn.results.database.store import Store
from sharedattn.results.records import TrialState
from sharedattn.search import provenance
from sharedattn.search.executors import worker_process as children

SEARCH = """\
from pathlib import Path
from sharedattn.results.database.store import Store
from sharedattn.search.config import SearchConfig
from sharedattn.search.run import prepare, run_search

print("begun")
config = SearchConfig.of(
    space="tiny.yaml", evaluator="table", table=Path("table.json"), num_trials=2, num_workers=1
)
prepared = prepare(config)
with Store.open(prepared.storage, create=True) as store:
    print(run_search(prepared, store).record.name)
"""


def script(text: str) -> subprocess.CompletedProcess[str]:
    Path("script.py").write_text(text, encoding="utf-8")
    root = str(Path(provenance.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "script.py"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": root},
    )


def refused(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("sharedattn.errors.InputError: the worker could not start")
    assert 'put what the script runs under `if __name__ == "__main__":`' in last
    assert "script.py" in last
    assert done.stderr.count("Traceback") == 1


@pytest.mark.slow
def test_a_search_without_its_guard_is_one_clear_error_and_fails_no_trial(lab) -> None:
    refused(script(SEARCH))
    database = "sqlite:///sharedattn-out/sharedattn.db"
    with Store.open(database, read_only=True) as store:
        (study,) = store.studies()
        assert {row.state for row in store.trials.of(study)} <= {TrialState.RUNNING}
    # With its guard it takes up what the other has left.
    head, _, body = SEARCH.partition("print")
    lines = "".join(f"    {line}\n" for line in f"print{body}".splitlines())
    done = script(f'{head}if __name__ == "__main__":\n{lines}')
    assert (done.returncode, done.stderr) == (0, "")
    with Store.open(database, read_only=True) as store:
        rows = store.trials.of(study)
    assert {row.state for row in rows} == {TrialState.COMPLETE}


def test_a_worker_ends_while_it_imports_its_script(monkeypatch) -> None:
    process = children.multiprocessing.current_process()
    monkeypatch.setattr(process, "_inheriting", True, raising=False)
    with pytest.raises(SystemExit):
        children.Child.start(print)


def test_the_commit_is_that_of_our_own_source_tree(tmp_path, monkeypatch) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *arguments], cwd=repository, check=True)

    def commit(of: Path) -> str | None:
        monkeypatch.setattr(provenance, "__file__", str(of / "search" / "provenance.py"))
        return provenance._commit()

    def package(folder: Path) -> Path:
        (folder / "search").mkdir(parents=True)
        (folder / "search/provenance.py").write_text("")
        return folder

    repository = tmp_path / "users"
    repository.mkdir()
    git("init", "-q")
    (repository / "pyproject.toml").write_text('[project]\nname = "theirs"\n')
    installed = package(repository / "venv/lib/python3/site-packages")
    copied = package(repository / "vendor/sharedattn")
    (copied / "pyproject.toml").write_text('[project]\nname = "sharedattn"\n')
    package(repository)
    git("add", "pyproject.toml", "vendor", "search")
    git("commit", "-qm", "theirs")
    assert commit(installed) is None  # not among the repository's files
    assert commit(copied) is None  # among them, but of another project
    assert commit(repository) is None  # at its top, but another project's

    # Whatever repository a hook's environment names.
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    assert commit(package(tmp_path / "nowhere")) is None
    monkeypatch.delenv("GIT_DIR")

    (repository / "pyproject.toml").write_text('[project]\nname = "sharedattn"\n')
    git("commit", "-qam", "ours")
    found = commit(repository)
    assert found is not None
    assert len(found) == 12
    git("rm", "-q", "--cached", "search/provenance.py")
    git("commit", "-qm", "no longer")
    assert commit(repository) is None
    (repository / "pyproject.toml").write_text("[broken")
    assert commit(repository) is None


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_a_temporary_folder_too_long_for_sockets_is_refused(lab, monkeypatch, variable) -> None:
    ray_tune = pytest.importorskip("sharedattn.search.executors.ray.executor")
    monkeypatch.setattr(ray_tune.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_tune.ray, "init", lambda **_: pytest.fail("began"))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    folder = Path("x" * 40).absolute()
    folder.mkdir()
    monkeypatch.setenv(variable, str(folder))
    said = lab.refused_search("--executor", "ray")
    assert f"`{variable}` is the folder in which Ray keeps the sockets" in said
    assert str(len(str(folder))) in said


def test_a_temporary_folder_that_cannot_be_made_is_refused(lab, monkeypatch) -> None:
    ray_tune = pytest.importorskip("sharedattn.search.executors.ray.executor")
    monkeypatch.setattr(ray_tune.ray, "is_initialized", lambda: False)

    def init(**_):
        raise NotADirectoryError(20, "Not a directory", "/dev/null/ray")

    monkeypatch.setattr(ray_tune.ray, "init", init)
    with pytest.raises(InputError, match="/dev/null/ray"):
        ray_tune.connect(None)
