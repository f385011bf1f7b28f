"""A search on each family, to an export that is verified: what a user does, at tiny size."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sharedattn.backbones import FAMILIES
from sharedattn.results.database.store import Store
from sharedattn.results.export.folder import read_export
from sharedattn.results.front.summary import StudySummary
from sharedattn.results.records import TrialState
from sharedattn.search.config import SearchConfig
from sharedattn.search.jobs.export import export_placement
from sharedattn.search.jobs.verify import verify_folder
from sharedattn.search.run import prepare, run_search
from sharedattn.tasks import CLASSIFY
from sharedattn.testing.tiny_backbones import tiny_space


@pytest.mark.slow
# Its data has classes; UNets denoise.
@pytest.mark.parametrize(
    "base_name", [family.base_name for family in FAMILIES if family.own_head == CLASSIFY]
)
# What is asked is whether all of it fits together, not what is learnt.
@pytest.mark.usefixtures("trials_run_here", "few_pairs")
def test_three_trials_and_an_export(base_name: str, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(tiny_space(base_name)), encoding="utf-8")
    prepared = prepare(
        SearchConfig.of(
            space=str(tmp_path / "space.yaml"),
            epochs=1,
            searcher="random",
            num_trials=3,
            confirm_seeds=1,
            num_workers=1,
            device="cpu",
            out=tmp_path / "out",
        )
    )
    with Store.open(prepared.storage, create=True) as store:
        summary = StudySummary.read(store, run_search(prepared, store))
        assert [row.state for row in summary.rows] == [TrialState.COMPLETE] * 3
        assert prepared.weights is not None
        retrained = export_placement(
            store, summary, "best", tmp_path / "best", weights=prepared.weights
        )
    assert retrained is None
    assert read_export(tmp_path / "best").spec.placement in prepared.space
    assert verify_folder(tmp_path / "best")["ok"] is True
