"""The command line: bad input of every kind ends with one error, exit code 2, nothing written.

Commands run in this process; the slow tests at the end run the real thing.
"""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import document, run
from PIL import Image
from tiny import SPACE_WITH_CB as SPACE
from tiny import TABLE

from sharedattn.search.cli.main import main
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture
def table(tmp_path, trials_run_here):
    path = tmp_path / "table.json"
    path.write_text(json.dumps({**TABLE, **{f"{p}/cb": a + 0.05 for p, a in TABLE.items()}}))
    return path


def test_cost_of_deit_tiny_is_fvcore_s_own_count(capsys):
    found = document(capsys, "cost", "deit_tiny_patch16_224: V12")
    assert found["params"] == 5_717_416
    assert found["macs"] == 1_258_411_200
    assert found["image_size"] == 224
    assert sum(part["macs"] for part in found["mechanisms"].values()) == found["macs"]
    assert {"placement", "attention_bytes", "stages", "mechanisms"} <= set(found)


def test_cost_of_layers_left_out_is_that_of_the_others(capsys):
    cut = document(capsys, "cost", "deit_tiny_patch16_224: V5X2V5")
    ten = document(capsys, "cost", "deit_tiny_patch16_224: V10X2")
    assert (cut.pop("placement"), ten.pop("placement")) == ("V5X2V5", "V10")
    assert cut.pop("network") == "deit_tiny_patch16_224: V5X2V5"
    assert ten.pop("network") == "deit_tiny_patch16_224: V10"
    assert cut == ten
    # fvcore's 1,258,411,200 of V12, less two of its blocks.
    assert (cut["macs"], cut["params"]) == (1258411200 - 2 * 102427392, 5717416 - 2 * 444864)
    assert cut["mechanisms"].keys() == {
        "vanilla", "less", "external", "dia", "broadcasting", "rest"
    }  # fmt: skip


def test_cost_says_what_less_attention_saves(capsys):
    code, out, _ = run(capsys, "cost", "deit_tiny_patch16_224: V6L6/cb/dia1")
    assert code == 0
    text = " ".join(out.split())
    assert "a less-attention layer (/full) loses 378 k MACs of the 44.0 M of a vanilla one" in text
    assert "/lowrank16 saves 12.1 M, /reuse 14.5 M" in text
    assert "it saves below N = 192 tokens, and here N = 197" in text
    assert "The paper's form of the layer would cost 67.8 M" in text


def test_cost_refuses_a_dia_unit_without_a_channel(capsys):
    code, out, err = run(capsys, "cost", "pvt_tiny(dia_reduction=100): V2/dia1|V2|V2|V2")
    assert (code, out) == (2, "")
    assert "the most that fits is dia_reduction=64" in err


def test_cost_check_asks_both_referees(capsys):
    found = document(capsys, "cost", "vit(depth=2,embed_dim=12,num_heads=3)@32: V1L1", "--check")
    assert found["ok"] is True
    assert found["fvcore_macs"] == found["macs"]
    assert found["torch_matmul_macs"] == found["matmul_macs"]


def test_papers_as_a_document_a_table_and_a_page(capsys, tmp_path):
    found = document(capsys, "papers")
    assert {row["paper"] for row in found["rows"]} == {"LaViT", "EA", "CB", "DIA"}
    keys = {"paper", "model", "metric", "published", "ours", "difference", "status", "note"}
    assert all(keys <= set(row) for row in found["rows"])
    assert {row["status"] for row in found["rows"]} == {"equal", "explained", "unknown shape"}
    assert "a multiply-add is 1" in found["convention"]
    [deit] = [
        row
        for row in found["rows"]
        if (row["model"], row["metric"], row["printed"]) == ("DeiT-T", "params", "5.7 M")
    ]
    assert (deit["published"], deit["ours"], deit["difference"]) == (5_700_000, 5_717_416, 17_416)
    code, out, _ = run(capsys, "papers", "--to", tmp_path / "papers.md")
    assert code == 0
    text = " ".join(out.split())
    assert "LaViT: CVPR 2024 poster, plug-in table" in text
    assert "impossible by the printed MACs" in text
    lines = (tmp_path / "papers.md").read_text().splitlines()
    of_table = [line for line in lines if line.startswith("| ")]
    num_tables = sum(line.startswith("| model |") for line in lines)
    assert len(of_table) == len(found["rows"]) + 2 * num_tables


def test_space_counts(capsys, tiny):
    found = document(capsys, "space", tiny)
    # V1, N1; V2, V1L1, V1N1, N1V1, as an L needs a V before it: each with CB or without.
    assert found["size"] == found["in_budget"] == 12
    assert found["macs"]["min"] < found["macs"]["max"]
    within = document(capsys, "space", tiny, "--max-macs", found["macs"]["min"])
    assert within["in_budget"] == 2
    # What is left of the 12 lies above.
    above = document(capsys, "space", tiny, "--min-macs", found["macs"]["min"] + 1)
    assert above["in_budget"] == 10
    assert above["macs_in_budget"]["min"] > found["macs"]["min"]
    assert above["macs_in_budget"]["max"] == found["macs"]["max"]


def test_a_simulated_search_from_search_to_report(capsys, tiny, table, tmp_path):
    search = ("search", tiny, "--evaluator", "table", "--table", table, "--out", tmp_path / "out")
    found = document(capsys, *search, "--trials", 8, "--confirm-seeds", 1)
    assert found["trials"] == {"complete": 8, "pruned": 0, "failed": 0, "running": 0}
    assert 0 < found["hypervolume"] < 1
    assert Path(found["report"]).is_file()
    assert found["exported"] is None
    # The same command again runs nothing; more trials go on; the space ends at 12.
    assert (
        document(capsys, *search, "--trials", 8, "--confirm-seeds", 1)["front"] == found["front"]
    )
    grown = document(capsys, *search, "--trials", 40, "--confirm-seeds", 1)
    assert grown["study"] == found["study"]
    assert grown["trials"]["complete"] == 12
    front = document(capsys, "front", "--out", tmp_path / "out")
    assert front["front"] == grown["front"]
    assert front["front"][-1]["placement"] == "V2/cb"
    assert set(front["front"][0]) >= {
        "id", "placement", "top1", "macs", "params", "latency_ms", "seeds"
    }  # fmt: skip
    code, out, _ = run(capsys, "front", found["study"], "--out", tmp_path / "out")
    assert code == 0
    assert "V2/cb" in out
    report = document(capsys, "report", "--out", tmp_path / "out")
    assert "V2/cb" in Path(report["report"]).read_text()


def test_a_simulated_search_is_explained(capsys, tmp_path, trials_run_here):
    space = BudgetedSpace(Space.load("digit-pairs-vit"), Budget(max_macs=700_000))
    told = {str(p): 0.6 + 0.1 * len(p.layers) + 0.05 * p.layers[0].cb for p in space.enumerate()}
    (tmp_path / "told.json").write_text(json.dumps(told))
    search = (
        "search", "digit-pairs-vit", "--max-macs", 700_000, "--evaluator", "table",
        "--table", tmp_path / "told.json", "--searcher", "stratified", "--confirm-seeds", 1,
    )  # fmt: skip
    out = ("--out", tmp_path / "out")
    study = document(capsys, *search, *out, "--trials", 7)["study"]
    code, _, err = run(capsys, "explain", *out)
    assert code == 2 and "it needs 5 more trials" in err
    grown = document(capsys, *search, *out, "--trials", 23)
    assert "Learned from 23 placements" in Path(grown["report"]).read_text()
    found = document(capsys, "explain", study, *out)
    assert (found["study"], found["trainings"], found["level"]) == (study, 23, 0.9)
    cb = "context broadcasting in one more layer"
    (effect,) = [one for one in found["effects"] if one["text"] == cb]
    assert effect["verdict"] == "clear" and 0 < effect["top1"]["low"] < effect["top1"]["high"]
    code, text, _ = run(capsys, "explain", study, *out)
    assert code == 0 and cb in text and "MACs a point" in text


def test_a_simulated_search_stops_trials_at_rungs(capsys, tiny, table, tmp_path):
    final = json.loads(table.read_text())
    table.write_text(json.dumps({p: [a / 3, a / 2, a] for p, a in final.items()}))
    found = document(
        capsys, "search", tiny, "--evaluator", "table", "--table", table,
        "--out", tmp_path / "out", "--trials", 12, "--confirm-seeds", 1,
        "--early-stopping", "mo-asha", "--rungs", "1,2",
    )  # fmt: skip
    trials, stopped = found["trials"], found["stopping"]["stopped"]
    assert trials["complete"] + trials["pruned"] == 12 and trials["failed"] == 0
    assert stopped["1"] + stopped["2"] == trials["pruned"] > 0
    assert 1 / 3 < found["stopping"]["compute_share"] < 1
    assert found["fidelity"]["epochs"] == 3
    code, out, _ = run(capsys, "front", found["study"], "--out", tmp_path / "out")
    assert code == 0 and f"{stopped['1']} trial" in out and "stopped at epoch 1" in out
    report = Path(found["report"]).read_text()
    assert "Early stopping: " in report and "stopped at epoch 1" in report


def test_placements_missing_in_the_table_fail_and_the_search_goes_on(
    capsys, tiny, table, tmp_path
):
    table.write_text(json.dumps({"V2": 0.9, "V1": 0.7}))
    found = document(
        capsys, "search", tiny, "--evaluator", "table", "--table", table,
        "--out", tmp_path / "out", "--trials", 12, "--confirm-seeds", 1,
    )  # fmt: skip
    assert found["trials"] == {"complete": 2, "pruned": 0, "failed": 10, "running": 0}


def bad(capsys, tmp_path, *arguments):
    """The error of a command that must refuse its input and write nothing."""
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    code, out, err = run(capsys, *arguments)
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("sharedattn: ")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    return err


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ((), "the following arguments are required"),
        (("seach",), "invalid choice: 'seach'"),
        (("cost", "deit_tiny_patch16_224: L12"), "is L (less attention) and has nothing to reuse"),
        (("cost", "deit_tiny_patch16_224: V13"), "layers, more than the 12 of"),
        (("cost", "deit_tiny_patch16_224: V2/dia3"), "which has from 1 to 2 groups"),
        (("cost", "no_such_model: V12"), "no_such_model"),
        (("cost", "resnet50: V12"), "resnet50"),
        (("cost", "vit_small_plus_patch16_dinov3: V12"), "vit_small_plus_patch16_dinov3"),
        (("cost", "V12"), "it is neither `backbone: placement` nor"),
        (("papers", "--to", "no-such-folder/papers.md"), "`--to` cannot be written"),
        (("space", "no-such-space"), "is neither a preset nor a YAML file"),
        (("search", "no-such-space"), "is neither a preset nor a YAML file"),
        (("search", "--data", "no-such-data"), "is no folder here; give digit-pairs"),
        (("search", "--max-macs", "1k"), "the fewest macs of any member are 45144"),
        (("search", "--min-macs", "1G"), "lower min_macs to "),
        (("search", "--max-macs", "100k", "--min-macs", "200k"), "min_macs is 200000, more than"),
        (("search", "--max-macs", "5%"), "the fewest macs of any member are 45144"),
        (("search", "--max-macs", "67%%"), "is no quantity; write a number, with k, M, G or T"),
        (("search", "--max-macs", "fast"), "is no quantity; write a number, with k, M, G or T"),
        (("search", "--trials", "0"), "`--trials` is a whole number from 1"),
        (("search", "--confirm-seeds", "0"), "`--confirm-seeds` is a whole number from 1"),
        (("search", "--workers", "0"), "`--workers` is a whole number from 1"),
        (("search", "--seed", "-1"), "`--seed` is a whole number from 0"),
        (("search", "--study", "../mine"), "`--study` is '../mine'; give up to 200 ASCII letters"),
        (
            ("search", "--searcher", "magic"),
            "`--searcher` is one of model, tpe, nsga2,",
        ),
        (
            ("search", "--objectives", "top1,speed"),
            "`objectives` names 'speed', which is none; name top1",
        ),
        (("search", "--objectives", "latency_ms,macs"), "name top1 first, then at least"),
        (("search", "--objectives", "latency_ms"), "name top1 first, then at least one cost"),
        (("search", "--max-latency-ms", "0"), "`--max-latency-ms` is a number above 0"),
        (("search", "--max-latency-ms", "nan"), "`--max-latency-ms` is a number above 0"),
        (("search", "--max-latency-ms", "fast"), "invalid float value: 'fast'"),
        (
            ("search", "--max-latency-ms", "3", "--executor", "ray"),
            "--executor ray excludes latencies",
        ),
        (
            ("search", "--objectives", "top1,latency_ms", "--executor", "ray"),
            "excludes latencies",
        ),
        (
            ("search", "--objectives", "top1,latency_ms", "--evaluator", "table", "--table", "t"),
            "--evaluator table excludes latencies, since a table has no network to time",
        ),
        (
            ("search", "--latency-batch-size", "3"),
            "--latency-batch-size requires --objectives",
        ),
        (
            ("search", "--max-latency-ms", "3", "--latency-batch-size", "0"),
            "`--latency-batch-size` is a whole number from 1",
        ),
        (("search", "--evaluator", "table"), "--evaluator table requires --table FILE"),
        (("search", "--recipe", "no-such"), "`recipe` is 'no-such', but there is no such file"),
        (("search", "--recipe", "digit-cont"), "; did you mean digit-count"),
        (("search", "--max", "watts=3"), "--max watts=3: 'watts' is no cost; name one of macs"),
        (("search", "--epochs", "0"), "`epochs` of a recipe is a number from 1"),
        (("search", "--storage", "mysql://localhost/x"), "`storage` is sqlite:///FILE"),
        (("search", "--executor", "carrier-pigeon"), "invalid choice: 'carrier-pigeon'"),
        (("front", "--out", "no-such-folder"), "there is no database file"),
        (("verify", "no-such-folder"), "there is no config.yaml to read"),
        (("train", f"vit(depth=2)@16: {'V1' * 200}", "--to", "x"), "layers, more than the"),
        (("train", "vit(depth=2)@16: V1", "--head", "keep", "--to", "x"), "--head requires"),
        (
            ("train", "vit(depth=2)@16: V1", "--more", "1", "--to", "x"),
            "there is no 'vit(depth=2)",
        ),
        (("search", "--evaluator", "supernet", "--head", "keep"), "--head requires --weights"),
        (("search", "--head", "keep"), "--head requires --evaluator supernet"),
    ],
)
def test_bad_input(capsys, tmp_path, monkeypatch, arguments, rule):
    monkeypatch.chdir(tmp_path)
    assert rule in " ".join(bad(capsys, tmp_path, *arguments).split())


def test_a_space_that_has_no_member(capsys, tmp_path, tiny):
    tiny.write_text(SPACE + "constraints:\n  - {rule: first, kinds: [L], per: network}\n")
    error = bad(capsys, tmp_path, "search", tiny, "--out", tmp_path / "out")
    assert "first(per=network kinds=L) excludes every one" in error


def test_a_corrupt_and_a_foreign_database(capsys, tmp_path, tiny, table):
    search = ("search", tiny, "--evaluator", "table", "--table", table, "--out", tmp_path / "out")
    corrupt = tmp_path / "corrupt.db"
    corrupt.write_bytes(b"this is no database" * 100)
    error = bad(capsys, tmp_path, *search, "--storage", f"sqlite:///{corrupt}")
    assert "corrupt.db" in error
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    error = bad(capsys, tmp_path, *search, "--storage", f"sqlite:///{foreign}")
    assert "is not one of sharedattn's" in error


def test_a_name_in_use_with_another_space(capsys, tmp_path, tiny, table):
    search = ("search", "--evaluator", "table", "--table", table, "--out", tmp_path / "out",
              "--study", "mine", "--trials", 2, "--confirm-seeds", 1)  # fmt: skip
    document(capsys, *search, tiny)
    front = document(capsys, "front", "mine", "--out", tmp_path / "out")
    code, out, err = run(capsys, *search, "digit-pairs-vit")
    assert (code, out) == (2, "")
    assert re.search("'mine' was made with other choices: .*space", " ".join(err.split()))
    assert document(capsys, "front", "mine", "--out", tmp_path / "out") == front


def test_json_errors_leave_standard_output_empty(capsys, tmp_path):
    code, out, err = run(capsys, "cost", "no_such_model: V1", "--json")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1


def test_help_of_every_command(capsys):
    for command in (
        "search",
        "space",
        "cost",
        "front",
        "report",
        "explain",
        "export",
        "verify",
        "train",
        "analyze",
    ):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("proxies",), "`proxies` was removed: no zero-cost proxy ranked.*benchmarks/proxy_ranks"),
        (("proxies", "table.json", "--json"), "`proxies` was removed"),
        (("search", "--tree-memory", "2G"), "`--tree-memory` was removed.*lower batch_size"),
        (("search", "--evaluator", "supernet", "--tree-memory=2G"), "`--tree-memory` was removed"),
    ],
)
def test_what_was_removed_names_what_replaces_it(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(message, err)


# The real thing

LONGEST_S = 900.0  # of a search, on a machine with much else to do
EMBEDDED = ("search", "--trials=3", "--epochs=1", "--confirm-seeds=2", "--max-macs=150k")


@pytest.fixture
def process():
    """Starts a command in a session of its own; of one that has not ended nothing is left."""
    started = []

    def start(*arguments):
        command = [sys.executable, "-m", "sharedattn", *map(str, arguments)]
        started.append(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                # A shell that runs the tests in the background has them, and so this, ignore
                # Ctrl-C.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        )
        return started[-1]

    yield start
    for command in started:
        if command.poll() is None:
            os.killpg(command.pid, signal.SIGKILL)
        command.communicate()


@pytest.fixture
def begun(process):
    """Starts a search; it has its study then, and is about to begin its trials."""

    def start(*arguments):
        search = process("search", *arguments)
        # It names the study once it may drive it.
        assert search.stdout.readline(), search.stderr.read()
        return search

    return start


@pytest.mark.slow
def test_a_search_for_latency_shows_exports_and_keeps_it(capsys, tmp_path, tiny, trials_run_here):
    search = ("search", tiny, "--trials", "3", "--epochs", "1", "--confirm-seeds", "1",
              "--workers", "1", "--objectives", "top1,latency_ms,macs",
              "--out", tmp_path / "out")  # fmt: skip
    found = document(capsys, *search)
    assert found["objectives"] == ["top1", "latency_ms", "macs"]
    assert found["latency"]["source"] == "network"
    assert set(found["latency"]) == {"source", "where", "setting", "backbone"}
    assert all(member["latency_ms"] > 0 for member in found["front"])
    assert {member["latency_source"] for member in found["front"]} == {found["latency"]["source"]}
    reference = found["reference_point"]
    assert reference["latency_ms"] > 0
    # On a busy machine every member can be measured to be slower than the reference.
    is_inside = any(
        member["top1"] > reference["top1"]
        and member["latency_ms"] < reference["latency_ms"]
        and member["macs"] < reference["macs"]
        for member in found["front"]
    )
    assert (found["hypervolume"] > 0) == is_inside
    assert 0 <= found["hypervolume"] < 1
    card = (Path(found["exported"]) / "README.md").read_text()
    assert "| latency | " in card
    # What is stored is measured no more: to the last digit.
    again = document(capsys, *search)
    for name in ("front", "latency", "hypervolume", "reference_point"):
        assert again[name] == found[name]
    picked = document(capsys, "export", "--pick", "latency_ms<1000", "--out", tmp_path / "out")
    config = yaml.safe_load((Path(picked["exported"]) / "config.yaml").read_text())
    assert config["latency"]["latency_ms"] in [m["latency_ms"] for m in found["front"]]
    code, out, _ = run(capsys, "front", "--out", tmp_path / "out")
    assert (code, "latency: " in out, " ms" in out) == (0, True, True)
    assert "<dt>latency</dt>" in Path(found["report"]).read_text()


@pytest.mark.slow
def test_a_search_in_real_processes_is_exported_verified_and_trained_again(
    capsys, tmp_path, process
):
    search = process(*EMBEDDED, "--out", tmp_path / "out", "--json")
    out, err = search.communicate(timeout=LONGEST_S)
    assert search.returncode == 0, err
    found = json.loads(out)
    assert found["trials"]["complete"] == 3
    assert all(member["seeds"] == 2 for member in found["front"])
    exported = Path(found["exported"])
    assert document(capsys, "verify", exported)["ok"] is True

    weights = exported / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    code, out, _ = run(capsys, "verify", exported, "--json")
    assert (code, json.loads(out)["ok"]) == (1, False)

    # A placement off the front has no weights any more: its export trains it again, and says so.
    front = {member["id"] for member in found["front"]}
    off_front = next(i for i in range(3) if i not in front)
    again, trained = tmp_path / "again", tmp_path / "trained"
    code, out, err = run(
        capsys, "export", "--pick", off_front, "--to", again, "--out", tmp_path / "out"
    )
    assert code == 0, err
    assert "it was trained again" in out
    assert document(capsys, "verify", again)["ok"] is True
    document(capsys, "train", again, "--epochs", 1, "--seed", 5, "--to", trained)
    code, out, err = run(capsys, "verify", trained)
    assert code == 0, out + err


@pytest.mark.slow
# timm's data sets leave closing image files to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_search_on_a_folder_of_images(capsys, tmp_path, trials_run_here):
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for label, name in enumerate(("ant", "bee", "cow")):
            (tmp_path / "animals" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 60, (19, 17, 3)) + 90 * np.eye(3, dtype=int)[label]
                path = tmp_path / "animals" / split / name / f"{i}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    space = tmp_path / "space.yaml"
    space.write_text(
        SPACE.replace("in_chans=1,num_classes=2,", "").replace("num_heads=2", "num_heads=3")
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "epochs: 2\nbatch_size: 5\nlr: 0.01\nhflip: 0.5\ncrop_scale_min: 0.5\nloader_workers: 1\n"
    )
    found = document(
        capsys, "search", space, "--data", tmp_path / "animals", "--recipe", recipe,
        "--trials", 2, "--confirm-seeds", 1, "--val-fraction", 0.25, "--out", tmp_path / "out",
    )  # fmt: skip
    assert found["trials"]["complete"] == 2
    config = yaml.safe_load((Path(found["exported"]) / "config.yaml").read_text())
    assert config["data"]["images"] == {"train": 27, "validation": 12, "test": 9}
    assert config["spec"]["backbone"]["num_classes"] == 3
    code, out, err = run(capsys, "verify", found["exported"])
    assert code == 0, out + err


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(capsys, tiny, tmp_path, trials_run_here, begun):
    arguments = (tiny, "--trials", 3, "--epochs", 1, "--confirm-seeds", 1, "--workers", 1,
                 "--out", tmp_path / "out")  # fmt: skip
    first = begun(*arguments)
    os.killpg(first.pid, signal.SIGINT)
    _, err = first.communicate(timeout=LONGEST_S)
    assert first.returncode == 130
    assert "run the same command again" in err
    found = document(capsys, "search", *arguments)
    assert found["trials"] == {"complete": 3, "pruned": 0, "failed": 0, "running": 0}


@pytest.mark.slow
def test_a_second_driver_is_refused(capsys, tmp_path, begun):
    out = tmp_path / "out"
    # More trials than end before it is killed.
    arguments = ("--trials", 1000, "--epochs", 1, "--study", "mine", "--workers", 1, "--out", out)
    first = begun(*arguments)
    code, _, err = run(capsys, "search", *arguments)
    assert code == 2
    assert f"is being searched by process {first.pid}" in " ".join(err.split())
    assert document(capsys, "front", "mine", "--out", out)["study"] == "mine"
