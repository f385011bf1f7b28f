"""Codes of gated blocks: as placements, their costs, and a real run at a tiny size."""

import json

import gate_masks
from gate_masks import DIA_CODE, main, placement_of, published_costs, random_codes


def test_codes_are_masks_of_the_four_stages():
    text = "V/d0,V/d0,V | V,V,V/d0,V/d0 | V/d0,V/d0,V,V,V/d0,V | V,V/d0,V/d0"
    assert str(placement_of(DIA_CODE, "dia1")) == text
    assert str(placement_of("0" * 16, "dia1")) == "V3 | V4 | V6 | V3"
    assert str(placement_of("1" * 7 + "0" * 9, "sge1")) == "V3/sge1 | V4/sge1 | V6 | V3"


def test_random_codes_differ_and_have_as_many_gates():
    codes = random_codes(20, 9)
    assert len(set(codes)) == 20 and all(len(c) == 16 and c.count("1") == 9 for c in codes)
    assert random_codes(20, 9) == codes


def test_costs_of_the_published_codes_are_sums_over_gated_blocks():
    dia, sge = published_costs()
    # Two maps C -> m -> 4 C of r = 20 for each gated block: m C + 4 m C, of input and of state.
    widths = [256] * 3 + [512] * 4 + [1024] * 6 + [2048] * 3
    gates = [2 * (C // 20) * 5 * C for C in widths]
    gated = sum(macs for macs, bit in zip(gates, DIA_CODE, strict=True) if bit == "1")
    assert dia["published"]["macs"] - dia["none"]["macs"] == gated
    assert dia["all"]["macs"] - dia["none"]["macs"] == sum(gates)
    assert dia["published"]["params"] == dia["all"]["params"] == 28_358_052
    # By brute force over all codes.
    sums = [0]
    for macs in gates:
        sums += [total + macs for total in sums]
    share = sum(total <= gated for total in sums) / len(sums)
    assert dia["share_with_no_more_macs"] == share
    assert sge["published"]["macs"] == sge["none"]["macs"]


def test_it_searches_trains_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gate_masks, "SEARCHERS", ("stratified",))
    for name in ("NUM_TRIALS", "TRIAL_EPOCHS", "EPOCHS", "NUM_RANDOM"):
        monkeypatch.setattr(gate_masks, name, 1)
    monkeypatch.setattr(gate_masks, "SEEDS", (3,))
    asked = [str(tmp_path), f"--rows={tmp_path / 'rows.jsonl'}", "--workers=1", "--json"]
    main(asked)
    document = json.loads(capsys.readouterr().out)
    called = [row["called"] for row in document["networks"]]
    assert called == ["published", "none", "all", "stratified", "random 1"]
    published, none, every, found, _ = document["networks"]
    assert none["macs"] <= found["macs"] <= published["macs"] < every["macs"]
    rows = (tmp_path / "rows.jsonl").read_bytes()
    main(asked)
    assert (tmp_path / "rows.jsonl").read_bytes() == rows
    assert json.loads(capsys.readouterr().out) == document
