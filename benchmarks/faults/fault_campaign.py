"""Hit searches on a cluster with faults at random moments; nothing may be lost or done twice.

    python benchmarks/faults/fault_campaign.py [--runs 50] [--kinds driver worker ...]
        [--trials 14] [--seed 0] [--results FILE] [--json]

It starts a PostgreSQL server and a Ray cluster of two nodes on loopback, and runs a search once
without faults and then once for each fault: two slots, the random searcher, `--deterministic`, and
a deterministic evaluator with a checkpoint after each epoch. Every fifth fault of each kind hits
before a search's first trial, the others between that and its end. The moment is uniform over the
time that the search without faults took for that part, and is counted from the last epoch finished
by any worker before it, so that it does not depend on the machine's speed. A command that fails,
because it was killed or found its disk full, is run again.

Each search must end with the requested number of finished trials; none may be running or have been
started again after it finished; those seen finished before the fault must be unchanged; and trials
and front must equal those of the search without faults. Results are stored in FILE as they come:
the same command resumes from there, and prints docs/measurements/fault_campaign.md once all runs
are done.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore", message=".*torch.jit.*")
# The PostgreSQL server and its proxy are shared with the benchmarks in the parent folder.
sys.path.append(str(Path(__file__).parents[1]))

from cutting_proxy import CuttingProxy  # noqa: E402 (the warning is timm's, at import)
from epoch_evaluator import EpochEvaluator, FillableBlobs, Journal  # noqa: E402
from fault_page import page, runs_table  # noqa: E402
from fault_records import Findings, Planned, Record, Undisturbed, plan  # noqa: E402
from fault_verdict import Result, Work, violations  # noqa: E402
from faults import EXIT_BAD_INPUT, FAULTS, Surroundings, small_disk  # noqa: E402
from postgresql_server import PostgreSQLServer  # noqa: E402
from ray_nodes import TwoNodes  # noqa: E402

from sharedattn.errors import InputError  # noqa: E402
from sharedattn.results.artifacts.blobs import BlobStore  # noqa: E402
from sharedattn.results.artifacts.weights import WeightsStore  # noqa: E402
from sharedattn.results.database.errors import StorageError  # noqa: E402
from sharedattn.results.database.store import Store  # noqa: E402
from sharedattn.results.front.summary import StudySummary  # noqa: E402
from sharedattn.results.records import TrialRow  # noqa: E402
from sharedattn.search.config import SearchConfig  # noqa: E402
from sharedattn.search.provenance import provenance  # noqa: E402
from sharedattn.search.run import Prepared, prepare, run_search  # noqa: E402

STUDY = "faults"
NUM_SLOTS = 2
LONGEST_S = 300.0  # timeout of one command; a driver waits 120 s for its database
MAX_COMMANDS = 3  # per run


@dataclass(frozen=True)
class Lab:
    """What all runs share.

    Attributes:
        server: the databases' server.
        nodes: the Ray cluster.
        trials: number of trials per search.
        epoch_s: seconds per epoch of the evaluator.
    """

    server: PostgreSQLServer
    nodes: TwoNodes
    trials: int
    epoch_s: float


def prepared_search(folder: Path, trials: int, epoch_s: float, **where: Any) -> Prepared:
    """Prepare the campaign's search for a given executor and database.

    Args:
        folder: folder of its files.
        trials: number of trials.
        epoch_s: seconds per epoch of the evaluator.
        where: further options of its configuration.
    """
    prepared = prepare(
        SearchConfig.of(
            searcher="random",
            num_trials=trials,
            confirm_seeds=1,
            num_workers=NUM_SLOTS,
            deterministic=True,
            device="cpu",
            study=STUDY,
            out=folder / "out",
            weights_dir=str(folder / "disk" / "weights"),
            **where,
        )
    )
    assert prepared.weights is not None
    blobs = FillableBlobs(prepared.weights.blobs.url)
    evaluator = EpochEvaluator(blobs, Journal(folder / "journal"), epoch_s=epoch_s)
    return replace(prepared, evaluator=evaluator)


def drive(arguments: argparse.Namespace) -> int:
    """Search as `sharedattn search` does; return its exit code."""
    folder: Path = arguments.drive
    try:
        prepared = prepared_search(
            folder,
            arguments.trials,
            arguments.epoch_s,
            executor="ray",
            address=arguments.address,
            storage=arguments.storage,
        )
        with Store.open(prepared.storage, create=True) as store:
            run_search(prepared, store, on_begin=lambda study: (folder / "begun").touch())
    except (InputError, StorageError) as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


@dataclass(frozen=True)
class Search:
    """A study: its command, its database, and its workers' files.

    Attributes:
        lab: the laboratory that it runs in.
        folder: folder of its files.
        database: URL of its database.
        proxied: URL of its database through the proxy.
    """

    lab: Lab
    folder: Path
    database: str
    proxied: str

    @property
    def journal(self) -> Journal:
        return Journal(self.folder / "journal")

    @property
    def blobs(self) -> BlobStore:
        return BlobStore(str(self.folder / "disk" / "weights"))

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command, the same every time."""
        options = {
            "--drive": self.folder,
            "--storage": self.proxied,
            "--address": self.lab.nodes.address,
            "--trials": self.lab.trials,
            "--epoch-s": self.lab.epoch_s,
        }
        given = [str(part) for option in options.items() for part in option]
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, str(Path(__file__).absolute()), *given],
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    @property
    def begun_at(self) -> float | None:
        """When a driver first held the study, in seconds since 1970, or None if none has."""
        path = self.folder / "begun"
        return path.stat().st_mtime if path.exists() else None

    def steps_at(self) -> list[float]:
        """Times of its start and of its workers' journal entries, in seconds since 1970."""
        begun_at = self.begun_at
        if begun_at is None:
            return []
        return [begun_at, *(entry.at for entry in self.journal.read())]

    def last_line(self) -> str:
        """The last line of the last command's error output."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing"

    def finished(self) -> dict[int, TrialRow]:
        """The finished trials, by number."""
        try:
            with Store.open(self.database, read_only=True) as store:
                study = store.find_study(STUDY)
                rows = [] if study is None else store.trials.of(study)
        except InputError:  # no tables yet
            rows = []
        return {row.number: row for row in rows if row.finished_at is not None}

    def summary(self) -> StudySummary:
        """The current summary of the study."""
        with Store.open(self.database, read_only=True) as store:
            return StudySummary.read(store, store.study(STUDY))

    def attempts(self) -> dict[str, int]:
        """Number of attempts of all trials by outcome, with OPEN for unfinished ones."""
        with Store.open(self.database, read_only=True) as store:
            rows = store.trials.of(store.study(STUDY))
            attempts = [attempt for row in rows for attempt in store.trials.attempts(row.id)]
        return dict(Counter("OPEN" if a.outcome is None else a.outcome.value for a in attempts))

    def files_left(self, summary: StudySummary) -> int:
        """Number of checkpoints, and of weights not on the front."""
        on_front = {member.runs[0].evaluation_key for member in summary.front.members}
        checkpoints = self.blobs.names(f"checkpoints/{STUDY}/")
        return len(checkpoints) + len(WeightsStore(self.blobs).keys() - on_front)

    @property
    def _log(self) -> Path:
        return self.folder / "log"


@contextmanager
def laboratory(trials: int, epoch_s: float) -> Iterator[Lab]:
    """Start a server and a cluster for the campaign."""
    with PostgreSQLServer() as server, TwoNodes() as nodes:
        yield Lab(server, nodes, trials, epoch_s)


@contextmanager
def new_search(lab: Lab, name: str) -> Iterator[tuple[Search, Surroundings]]:
    """A new study, not begun, whose files are deleted afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        disk = stack.enter_context(small_disk(folder / "disk"))
        database = lab.server.create_database(name)
        stack.callback(lab.server.execute, f'DROP DATABASE "{name}" WITH (FORCE)')
        proxy = stack.enter_context(CuttingProxy(lab.server.port))
        stack.callback(lab.nodes.bury)
        search = Search(lab, folder, database, lab.server.url(name, port=proxy.port))
        yield search, Surroundings(lab.nodes, lab.server, proxy, disk, search.journal)


@contextmanager
def running(search: Search) -> Iterator[subprocess.Popen[bytes]]:
    """Run the search's command, and make sure that it has ended afterwards."""
    driver = search.start()
    try:
        yield driver
    finally:
        driver.kill()
        driver.wait()


def wait(driver: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    """The driver's exit code, or None if it still runs."""
    try:
        return driver.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None


def run_undisturbed(lab: Lab) -> Undisturbed:
    """Run a search without a fault."""
    with new_search(lab, "undisturbed") as (search, _):
        started_at = time.time()
        with running(search) as driver:
            if wait(driver, LONGEST_S) != 0:
                raise RuntimeError(f"the undisturbed search ended badly: {search.last_line()}")
        wall_time_s = time.time() - started_at
        summary = search.summary()
        result = Result.of(summary)
        weights = WeightsStore(search.blobs).keys()
        found = violations(summary, result, {}, search.journal.read(), weights)
        if found:
            raise RuntimeError(f"the undisturbed search is not as demanded: {found}")
        return Undisturbed(result, [at - started_at for at in search.steps_at()], wall_time_s)


def run_struck(
    lab: Lab, planned: Planned, step: int, delay_s: float, demanded: Result
) -> Record | None:
    """Run a search with a fault, or return None if the search ended before it.

    Args:
        lab: the laboratory.
        planned: the fault.
        step: number of steps before it hits; see `Undisturbed.moment`.
        delay_s: seconds after the last of them.
        demanded: the required result.
    """
    fault, rng = FAULTS[planned.kind](), random.Random(planned.seed)
    codes: list[int | None] = []
    messages = []
    with new_search(lab, f"run_{planned.run}") as (search, around):
        started = time.monotonic()
        with running(search) as driver:
            while len(search.steps_at()) < step:
                if wait(driver, 0.02) is not None:
                    return None
            if wait(driver, delay_s) is not None:
                return None
            begun = search.begun_at is not None
            seen = search.finished()
            struck_s, finished_before = time.monotonic() - started, len(seen)
            while (done := fault.strike(around, driver, rng)) is None:
                if wait(driver, 0.02) is not None:
                    return None
            wait(driver, LONGEST_S if fault.lasts_s is None else fault.lasts_s)
            fault.mend(around)
            codes.append(wait(driver, LONGEST_S))
        # A search refused before it began may be started again.
        refused = codes[0] == EXIT_BAD_INPUT and search.begun_at is None
        while codes[-1] != 0 and len(codes) < MAX_COMMANDS:
            messages.append(search.last_line())
            seen = search.finished() | seen
            with running(search) as driver:
                codes.append(wait(driver, LONGEST_S))
        wall_time_s = time.monotonic() - started
        orphans = lab.nodes.num_orphans()
        summary, journal = search.summary(), search.journal.read()
        weights = WeightsStore(search.blobs).keys()
        found = violations(summary, demanded, seen, journal, weights)
        allowed = [0, *fault.exit_codes, *([EXIT_BAD_INPUT] if refused else [])]
        found += [f"exit code {code}" for code in codes if code not in allowed]
        return Record(
            run=planned.run,
            kind=planned.kind,
            done=done,
            begun=begun,
            moment_s=struck_s,
            finished_before=finished_before,
            exit_codes=codes,
            messages=messages,
            wall_time_s=wall_time_s,
            trials=dict(Counter(row.state.value for row in summary.rows)),
            attempts=search.attempts(),
            work=Work.of(journal),
            orphans=orphans,
            files_left=search.files_left(summary),
            violations=found,
        )


def run_planned(lab: Lab, planned: Planned, undisturbed: Undisturbed) -> Record:
    """Run a search with a fault, one step earlier if the search ended before it."""
    step, delay_s = undisturbed.moment(planned)
    while (record := run_struck(lab, planned, step, delay_s, undisturbed.result)) is None:
        step, delay_s = step - 1, 0.0
    return record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--kinds", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--trials", type=int, default=14)
    parser.add_argument("--epoch-s", type=float, default=0.3, help="mean time of an epoch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, metavar="FILE", default=Path("faults.json"))
    parser.add_argument("--json", action="store_true")
    # These options are for the command that the campaign runs.
    for hidden, kind in (("--drive", Path), ("--storage", str), ("--address", str)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive is not None:
        return drive(arguments)
    # Handle it like Ctrl-C, so that child processes are ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = ("runs", "kinds", "trials", "epoch_s", "seed")
    asked = {name: getattr(arguments, name) for name in names}
    try:
        findings = Findings.load(arguments.results, asked, provenance())
    except ValueError as error:
        parser.error(str(error))
    records = findings.records
    due = plan(arguments.kinds, arguments.runs, arguments.seed)[len(records) :]
    if due:
        findings.provenance = provenance()
        with laboratory(arguments.trials, arguments.epoch_s) as lab:
            undisturbed = findings.undisturbed = findings.undisturbed or run_undisturbed(lab)
            for planned in due:
                records.append(run_planned(lab, planned, undisturbed))
                findings.save(arguments.results)
                print(runs_table(records[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    print(arguments.results.read_text(encoding="utf-8") if arguments.json else page(findings))
    return 1 if any(record.violations for record in records) else 0


if __name__ == "__main__":
    sys.exit(main())
