"""Searches from scratch against plain networks: the box, the pairing, what is made again."""

import argparse
import json
from dataclasses import asdict

import pytest
from from_scratch import NUM_PLAIN, PLAIN, SUPERNET, PlainNetworks, Row, main, missing_rows, volume


def row(way, seed, hypervolume, trials=12):
    return Row(way=way, trials=trials, seed=seed, hypervolume=hypervolume, cpu_s=1.0, members=[])


ROWS = [
    *(row(PLAIN, seed, volume_) for seed, volume_ in enumerate((0.5, 0.6))),
    *(row("model", seed, volume_) for seed, volume_ in enumerate((0.53, 0.61))),
]


def test_the_box_is_from_guessing_to_four_vanilla_layers():
    full = PlainNetworks(24, 0).macs("V4")
    # 0.6 of the way from 0.25 to 1, at half the box's MACs; one beyond the box adds nothing.
    point, beyond = (0.25 + 0.6 * 0.75, 0.525 * full), (0.99, 1.06 * full)
    assert volume([point, beyond]) == pytest.approx(0.6 * 0.5)
    assert volume([(0.25 + 0.75, full)]) == pytest.approx(0.05 / 1.05)


def test_the_plain_networks_of_a_seed_share_no_training_with_anothers():
    jobs = [PlainNetworks(12, seed).jobs() for seed in (0, 1)]
    assert [len(of_seed) for of_seed in jobs] == [12, 12]  # four depths, three seeds
    assert not set(jobs[0]) & set(jobs[1])
    assert PlainNetworks(12, 0).macs("V4") < PlainNetworks(18, 0).macs("V4")


def test_differences_are_paired_by_seed(tmp_path, capsys):
    path = tmp_path / "from-scratch.jsonl"
    path.write_text("".join(json.dumps(asdict(one)) + "\n" for one in ROWS))
    main([str(tmp_path), "--print-only"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| plain | 12 | 2 | 0.5500 ")
    # 0.03 and 0.01: a mean of 0.02, 12.706 standard errors of 0.01 to either side.
    assert lines[3].split(" | ")[3:5] == ["0.5700 ± 0.5082", "+0.0200 ± 0.1271"]


def test_what_is_done_is_not_made_again():
    class Bench:
        def plain(self, seed):
            return row(PLAIN, seed, 0.5, NUM_PLAIN)

        def searched(self, way, seed, trials, before):
            return row(way, seed, 0.1 if before is None else 0.2, trials)

    asked = argparse.Namespace(seeds=(0, 1), ways=f"{SUPERNET},model", trials=(24, 12))
    rows = [row("model", 0, 0.9)]
    made = [(one.way, one.seed, one.trials) for one in missing_rows(Bench(), rows, asked)]
    assert made == [
        *((PLAIN, 0, NUM_PLAIN), (SUPERNET, 0, 0), ("model", 0, 24)),
        *((PLAIN, 1, NUM_PLAIN), (SUPERNET, 1, 0), ("model", 1, 12), ("model", 1, 24)),
    ]
    # A larger search goes on where the smaller one ended.
    assert [one.hypervolume for one in rows if one.trials == 24] == [0.2, 0.2]
