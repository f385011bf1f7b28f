"""Searches of a small space by shared weights, each run as a new process would."""

from dataclasses import replace

from fakes import Inline

from sharedattn.data import DataConfig
from sharedattn.objectives import parse_objectives
from sharedattn.recipe import Recipe
from sharedattn.results.artifacts.blobs import BlobStore
from sharedattn.results.artifacts.checkpoints import CheckpointStore
from sharedattn.results.artifacts.weights import WeightsStore
from sharedattn.results.database.store import Store
from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records import StudyRecord
from sharedattn.search.evaluators.scratch import ScratchEvaluator
from sharedattn.search.evaluators.supernet import SupernetEvaluator
from sharedattn.search.evaluators.supernet_spec import SupernetSpec
from sharedattn.search.searchers import SEARCHERS
from sharedattn.search.study.loop import StudyLoop
from sharedattn.search.study.strategies.supernet import (
    SUPERNET_NOTE,
    SharedExecutors,
    SupernetSearch,
    default_num_trials,
)
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space
from sharedattn.supernet.trainer import SupernetRecipe

OBJECTIVES = parse_objectives(("top1", "macs"))
SPACE = {
    "name": "small",
    "backbone": "vit(class_token=false,depth=2,embed_dim=10,global_pool=avg,in_chans=1,"
    "mlp_ratio=1,num_classes=2,num_heads=2,patch_size=4)@16",
    "order": "any",
    "stages": [
        {
            "depth": "1..2",
            "counts": {"V": "0..2", "L": "0..1", "E": "0..1"},
            "slots": [3, 5],
            "dia": [0, 1],
            "cb": ["none", "all"],
        }
    ],
}
TRAINING = Recipe(epochs=2, batch_size=16, init="torch", lr=5e-3)


class SupernetLab:
    """Runs studies of one space in one database, each run as a new process would."""

    def __init__(self, folder, budget=None, batch_size=TRAINING.batch_size):
        self.folder = folder
        self.training = replace(TRAINING, batch_size=batch_size)
        self.space = BudgetedSpace(Space.from_document(SPACE), budget or Budget())
        self.executors = []
        self.fine_tunes = False
        self.neutral_gates = True

    @property
    def evaluator(self):
        return SupernetEvaluator(
            scratch=ScratchEvaluator(
                data=DataConfig(name="digit-pairs", image_size=16, in_chans=1),
                recipe=replace(self.training, epochs=1),
                weights=WeightsStore(BlobStore(str(self.folder / "weights"))),
                checkpoints=CheckpointStore(BlobStore(str(self.folder / "weights"))),
            ),
            supernet=SupernetSpec(
                space=self.space.space,
                recipe=SupernetRecipe(
                    training=self.training,
                    scored_images=97,
                    neutral_gates=self.neutral_gates,
                ),
                seed=3,
            ),
            fine_tunes=self.fine_tunes,
        )

    def run(
        self,
        name="study",
        *,
        num_trials=None,
        confirm_seeds=0,
        die_after=(None, None, None),
        deaths=(),
        executors=None,
    ):
        """Run a study; training, scores and trainings of the front by `executors`, or here."""
        shared = self.evaluator
        self.executors = executors or [
            Inline(shared, num_slots=slots, die_after=last, deaths=first)
            for slots, last, first in zip((1, 2, 2), die_after, (deaths, (), ()), strict=True)
        ]
        training, scoring, retraining = self.executors
        record = StudyRecord(
            name=name,
            fingerprint_document={
                **self.space.budget.to_document(),
                **({"starts_from": "weights"} if self.fine_tunes else {}),
            },
            space={},
            data={},
            recipe={},
            objectives=("top1", "macs"),
            searcher="nsga2",
            seed=3,
            reference_point={"top1": 0.5, "macs": 1.1 * self.space.macs_range[1]},
            provenance={},
            num_trials=num_trials or default_num_trials(self.space),
            confirm_seeds=confirm_seeds,
        )
        with Store.open(f"sqlite:///{self.folder / 'lab.db'}", create=True) as store:
            study = store.get_or_create_study(record)
            with store.drive(study) as driver, retraining:
                driver.set_totals(num_trials=record.num_trials, confirm_seeds=confirm_seeds)
                study = store.study(name)
                strategy = SupernetSearch(
                    shared, SharedExecutors(training=lambda: training, scoring=lambda: scoring)
                )
                StudyLoop(
                    evaluator=shared,
                    strategy=strategy,
                    store=store,
                    driver=driver,
                    study=study,
                    space=self.space,
                    objectives=OBJECTIVES,
                    searcher=SEARCHERS["nsga2"](
                        self.space,
                        OBJECTIVES,
                        seed=3,
                        num_trials=record.num_trials,
                        study_attributes=store.searcher_attributes(study),
                    ),
                    executor=retraining,
                    deterministic=False,
                    weights=shared.scratch.weights,
                    checkpoints=shared.scratch.checkpoints,
                ).run()
        return self.summary(name)

    def note(self, name="study"):
        """What the study keeps of its supernet."""
        with Store.open(f"sqlite:///{self.folder / 'lab.db'}") as store:
            return store.searcher_attributes(store.study(name))[SUPERNET_NOTE]

    def evaluations(self, weights, name="study"):
        """Identities of a study's evaluations by `trained` or by `inherited` weights."""
        with Store.open(f"sqlite:///{self.folder / 'lab.db'}") as store:
            keys = {row.evaluation_key for row in store.trials.of(store.study(name))}
            found = [store.find_evaluation(key).record.identity for key in sorted(keys)]
        return [identity for identity in found if identity.fidelity.weights == weights]

    def summary(self, name="study"):
        with Store.open(f"sqlite:///{self.folder / 'lab.db'}") as store:
            return StudySummary.read(store, store.study(name))
