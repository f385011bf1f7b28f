"""The script for one GPU: every section on the CPU, its time, its errors and what it imports."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import gpu_check
import pytest
from gpu_check import FULL, PAIRS, PRINTED_SPEEDS, SECTIONS, SMALL, Setting, layer_spec, main

SCRIPT = Path(gpu_check.__file__)
ABSENT = (
    *("alembic", "cloudpickle", "fvcore", "jinja2", "matplotlib", "onnx", "optuna", "pandas"),
    *("psycopg", "ray", "rich", "scipy.optimize", "sqlalchemy"),
    *("sharedattn.results", "sharedattn.search", "sharedattn.spaces"),
)
WITHOUT = f"""
import runpy, sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if any(name == absent or name.startswith(absent + ".") for absent in {ABSENT!r}):
            return None
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
sys.argv = [{str(SCRIPT)!r}, *sys.argv[1:]]
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""


@pytest.mark.slow
def test_every_section_runs_from_a_clone_with_torch_and_timm_alone(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-c", WITHOUT, "--small", "--device", "cpu", "--out", "found"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    first, _, tables = done.stdout.partition("\n")
    document = json.loads(first)
    assert document["ok"] is True and document["small"] is True
    assert json.loads((tmp_path / "found" / "gpu_check.json").read_text()) == document
    assert (tmp_path / "found" / "gpu_check.md").read_text().strip() == tables.strip()
    sections = document["sections"]
    assert list(sections) == list(SECTIONS)
    rows = {name: len(section["rows"]) for name, section in sections.items()}
    assert rows == {
        "checks": 7,
        "layers": 8,
        "latency": 4,
        "ratios": 1,
        "amp": 3,
        "training": 6,
        "supernet": 2,
    }
    assert not any({"error", "stopped"} & set(section) for section in sections.values())
    compiled = sections["supernet"]["rows"][1]
    assert compiled["loss_difference"] == 0.0
    (ratio,) = sections["ratios"]["rows"]
    assert ratio["printed_ratio"] == round(2098 / 1768, 3) and ratio["model"] == "LaViT-T-like"
    for name in SECTIONS:
        assert f"## {name}\n" in tables


def fine(at):
    yield {"number": 0.123456, "text": "a | b", "ok": True}


def broken(at):
    yield {"number": 1.0}
    raise RuntimeError("made-up\nerror")


def refused(at):
    yield {"check": "one", "ok": False, "error": "it differs"}


def endless(at):
    yield {"number": 1.0}
    while True:
        time.sleep(0.01)
    yield {"number": 2.0}


def run(monkeypatch, capsys, seconds=30.0, **sections):
    monkeypatch.setattr(gpu_check, "SECTIONS", sections)
    code = main(["--small", "--device", "cpu", "--seconds", str(seconds)])
    first, _, tables = capsys.readouterr().out.partition("\n")
    return code, json.loads(first), tables


def test_a_section_that_fails_is_shown_and_the_others_run(monkeypatch, capsys):
    code, document, tables = run(monkeypatch, capsys, first=(1, broken), second=(1, fine))
    assert code == 1 and document["ok"] is False
    first, second = document["sections"].values()
    assert first["rows"] == [{"number": 1.0}] and first["error"] == "RuntimeError: made-up error"
    assert second["rows"] == [{"number": 0.1235, "text": "a | b", "ok": True}]
    assert "\nError: RuntimeError: made-up error\n" in tables
    assert "| number | text | ok |\n|---|---|---|\n| 0.1235 | a \\| b | yes |\n" in tables


def test_a_check_that_fails_makes_the_exit_code_1(monkeypatch, capsys):
    code, document, tables = run(monkeypatch, capsys, only=(1, refused))
    assert (code, document["ok"]) == (1, False)
    assert "| one | NO | it differs |" in tables


def test_a_section_is_stopped_at_its_share_and_leaves_what_it_has(monkeypatch, capsys):
    # 10 % of the time are kept for the end: 6 s are 5.4, of which a third is 1.8.
    started = time.perf_counter()
    code, document, tables = run(
        monkeypatch, capsys, seconds=6.0, quick=(1, fine), endless=(1, endless), last=(1, fine)
    )
    quick, stopped, last = document["sections"].values()
    assert time.perf_counter() - started < 15
    assert code == 0 and document["ok"] is True
    assert quick["limit_s"] == pytest.approx(1.8, abs=0.1)
    # What the first leaves is for the others, half for each.
    assert 1.8 < stopped["limit_s"] <= 2.7
    assert stopped["limit_s"] <= stopped["seconds"] < stopped["limit_s"] + 1
    assert stopped["rows"] == [{"number": 1.0}]
    assert stopped["stopped"].endswith("with 1 rows") and "\nStopped: after its " in tables
    assert last["rows"] and "stopped" not in last


def test_without_a_gpu_only_the_small_sizes_run(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "--small runs every section on a CPU" in capsys.readouterr().err


@pytest.mark.parametrize(("tokens", "prefix"), [(197, 1), (1024, 0), (4096, 0), (17, 1)])
def test_layers_have_the_tokens_that_are_asked_for(tokens, prefix):
    at = Setting("cpu", FULL)
    stage = layer_spec(at, tokens, "V2").shape.stages[0]
    assert (stage.num_tokens, stage.num_prefix_tokens) == (tokens, prefix)
    assert gpu_check.images_of(at, tokens) == 32_768 // tokens


def test_maps_over_too_many_tokens_are_shown_as_refused(monkeypatch):
    monkeypatch.setattr(gpu_check, "layer_times", lambda at, spec: (_timing(2.0), _timing(6.0)))
    rows = {(r["tokens"], r["layer"]): r for r in gpu_check.layers(Setting("cpu", FULL))}
    assert len(rows) == 3 * 8
    noted = {key for key, row in rows.items() if "note" in row}
    assert noted == {(4096, "less"), (4096, "less, keys")}
    assert rows[197, "less"]["forward_to_vanilla"] == 1.0
    # 12 N D^2 + 2 N^2 D for vanilla; reuse saves two projections, 2 N D^2.
    n, d = 197, 384
    vanilla = 12 * n * d**2 + 2 * n**2 * d
    norms = 2 * 5 * n * d
    expected = (vanilla - 2 * n * d**2 + norms) / (vanilla + norms)
    assert rows[n, "less, reuse"]["macs_to_vanilla"] == pytest.approx(expected, rel=1e-3)


def _timing(milliseconds):
    return gpu_check.Timing(milliseconds, 1)


def test_pairs_have_printed_speeds_and_networks():
    texts = {model for model, *_ in (*gpu_check.BASELINES, *gpu_check.MODELS)}
    assert set(PRINTED_SPEEDS) == texts
    assert {model for pair in PAIRS for model in pair} <= texts
    assert SMALL.pairs == 1 and FULL.pairs == len(PAIRS)
