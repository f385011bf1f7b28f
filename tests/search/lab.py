"""Studies of a small space in a database of their own, as a new process would run them."""

from fakes import Fake, Inline

from sharedattn.objectives import parse_objectives
from sharedattn.results.database.store import Store
from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records import StudyRecord, TrialRole
from sharedattn.search.searchers import SEARCHERS
from sharedattn.search.study.latency import Latencies
from sharedattn.search.study.loop import StudyLoop

SPACE = {
    "name": "small",
    "backbone": "vit(depth=4,embed_dim=8,num_heads=2,patch_size=4,in_chans=1,num_classes=2)@16",
    "order": "any",
    "stages": [
        {
            "depth": [1, 2, 3, 4],
            "counts": {"V": [0, 1, 2, 3, 4], "L": [0, 1, 2], "E": [0, 1], "N": [0, 1]},
            "slots": [5, 7],
            "dia": [0, 1],
            "cb": ["none", "all"],
        }
    ],
}


class Lab:
    """Runs studies in one database, each run as a new process would."""

    def __init__(self, folder, space):
        self.url = f"sqlite:///{folder / 'lab.db'}"
        self.space = space
        self.folder = folder

    def record(
        self,
        name,
        searcher,
        num_trials,
        confirm_seeds,
        seed,
        objectives=("top1", "macs"),
        latency=None,
    ):
        return StudyRecord(
            name=name,
            fingerprint_document={"searcher": searcher, "seed": seed},
            space={},
            data={},
            recipe={},
            objectives=objectives,
            searcher=searcher,
            seed=seed,
            reference_point={
                "top1": 0.5,
                "macs": 1.1 * self.space.macs_range[1],
                "latency_ms": 100.0,
            },
            latency=latency,
            provenance={},
            num_trials=num_trials,
            confirm_seeds=confirm_seeds,
        )

    def run(
        self,
        name="study",
        searcher="random",
        num_trials=12,
        confirm_seeds=1,
        seed=3,
        executor=None,
        deterministic=False,
        space=None,
        pruner=None,
        weights=None,
        objectives=("top1", "macs"),
        latency=None,
        max_latency_ms=None,
        notes=None,
    ):
        space = space or self.space
        executor = executor or Inline(Fake())
        with Store.open(self.url, create=True) as store:
            study = store.get_or_create_study(
                self.record(name, searcher, num_trials, confirm_seeds, seed, objectives, latency)
            )
            with store.drive(study) as driver, executor:
                driver.save_searcher_attributes(notes or {})
                driver.set_totals(num_trials=num_trials, confirm_seeds=confirm_seeds)
                study = store.study(name)
                StudyLoop(
                    store=store,
                    driver=driver,
                    study=study,
                    space=space,
                    objectives=parse_objectives(objectives),
                    evaluator=executor.evaluator,
                    searcher=SEARCHERS[searcher](
                        space,
                        parse_objectives(objectives),
                        seed=seed,
                        num_trials=num_trials,
                        study_attributes=store.searcher_attributes(study),
                    ),
                    executor=executor,
                    deterministic=deterministic,
                    pruner=pruner,
                    weights=weights,
                    latencies=(
                        Latencies(store, driver, study, max_latency_ms) if latency else None
                    ),
                ).run()
        return self.summary(name)

    def summary(self, name="study"):
        with Store.open(self.url) as store:
            return StudySummary.read(store, store.study(name))

    def history(self, name="study"):
        """Everything about the search trials that a replay must repeat."""
        with Store.open(self.url) as store:
            return [
                (
                    t.number,
                    t.spec_key,
                    t.state,
                    t.proposed,
                    t.repaired,
                    t.sampler_attributes,
                    t.top1,
                )
                for t in store.trials.parameters(store.study(name), TrialRole.SEARCH)
            ]

    def attempts(self, name="study"):
        with Store.open(self.url) as store:
            rows = store.trials.of(store.study(name))
            return {(row.role, row.number): store.trials.attempts(row.id) for row in rows}
