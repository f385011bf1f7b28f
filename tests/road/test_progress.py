"""What is happening is said while it happens: in place on a terminal, by lines elsewhere."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest
from rich.console import Console

ROW = r"epoch \d+/\d+  [\d,]+ images/s  loss \d+\.\d{3}  \d+:\d\d left"
SEARCH = ("--workers", 2, "--confirm-seeds", 1)


@pytest.fixture(autouse=True)
def all_of_it_is_said(monkeypatch):
    """Every step is told, and every message is printed at once."""
    monkeypatch.setattr("sharedattn.progress.EVERY_S", 0.0)
    monkeypatch.setattr("sharedattn.search.cli.progress.FIRST_LINE_AFTER_S", 0.0)
    monkeypatch.setattr("sharedattn.search.cli.progress.LINE_EVERY_S", 0.0)


@pytest.fixture
def terminal(monkeypatch):
    """Has the display drawn as on a terminal of 80 columns, into a text."""

    class Screen:
        encoding = "utf-8"

        def __init__(self):
            self.text = ""

        def write(self, text):
            self.text += text

        def flush(self):
            pass

        def isatty(self):
            return True

        @property
        def lines(self):
            plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text)
            return re.split(r"[\r\n]+", plain)

    screen = Screen()
    monkeypatch.setattr("sharedattn.search.cli.progress.REFRESHES_PER_S", 200.0)
    monkeypatch.setattr(
        "sharedattn.search.cli.commands.progress_console",
        lambda: Console(file=screen, force_terminal=True, width=80, height=24, soft_wrap=True),
    )
    return screen


def search(run, tiny, tmp_path, *more):
    found = run("search", tiny, "--out", tmp_path / "out", *more)
    assert found.code == 0, found.err
    return found


def test_a_log_says_how_far_every_running_trial_is(run, tiny, tmp_path, recipe, in_process):
    found = search(run, tiny, tmp_path, "--recipe", recipe(epochs=3), "--trials", 4, *SEARCH)
    for number in range(4):
        assert re.search(rf"search {number}  [VLN]\S+  {ROW}", found.err), found.err
    # Both slots of a moment are named, below a line on the whole.
    block = re.search(r"of 4 trials finished.*\n  search 0  .*\n  search 1  ", found.err)
    assert block, found.err
    assert "epoch 3/3  validating" in found.err
    assert "less than a minute left" in found.err
    assert "images/s" not in found.out


def test_a_document_stays_a_document(run, tiny, tmp_path, recipe, in_process):
    found = search(run, tiny, tmp_path, "--recipe", recipe(), "--trials", 2, *SEARCH, "--json")
    assert json.loads(found.out)["trials"]["complete"] == 2
    assert re.search(ROW, found.err)


def test_confirmations_are_shown_by_their_seeds(run, tiny, tmp_path, recipe, in_process):
    found = search(
        run, tiny, tmp_path, "--recipe", recipe(), "--trials", 2, "--workers", 1,
        "--confirm-seeds", 3, "--seed", 5,
    )  # fmt: skip
    assert re.search(rf"seed 6  \S+  {ROW}", found.err)
    assert re.search(rf"seed 7  \S+  {ROW}", found.err)
    # Two further seeds of each member of the front.
    (asked,) = set(re.findall(r"confirming: \d of (\d) runs finished", found.err))
    assert int(asked) in (2, 4)
    assert f"confirming: {asked} of {asked} runs finished" in found.err


def test_supernets_are_trained_and_asked_in_the_open(run, tiny, tmp_path, recipe, in_process):
    supernet = tmp_path / "supernet.yaml"
    supernet.write_text(
        json.dumps(
            {"training": {"epochs": 2, "batch_size": 64, "lr": 0.005}, "scored_images": 100}
        )
    )
    found = search(
        run, tiny, tmp_path, "--evaluator", "supernet", "--supernet-recipe", supernet,
        "--recipe", recipe(), "--confirm-seeds", 1, "--workers", 1, "--cpus-per-trial", 1,
    )  # fmt: skip
    assert re.search(rf"supernet  {ROW}", found.err), found.err
    assert "supernet  epoch 2/2  validating" in found.err
    assert re.search(r"scoring  100% of 12 placements  0:00 left", found.err), found.err
    assert re.search(rf"seed 0  \S+  {ROW}", found.err)
    # The knee is the best of the trainings, and needs none of its own.
    assert "export" not in found.err


def test_a_training_for_an_export_is_shown(run, tiny, tmp_path, recipe, in_process):
    search(run, tiny, tmp_path, "--recipe", recipe(), "--trials", 3, *SEARCH)
    for path in (tmp_path / "out" / "weights").rglob("*.safetensors"):
        path.unlink()
    found = run("export", "--pick", "0", "--out", tmp_path / "out", "--to", tmp_path / "one")
    assert found.code == 0, found.err
    assert "trained again" in found.out
    assert re.search(rf"export  V2  {ROW}", found.err), found.err


def test_a_single_training_says_how_far_it_is(run, tmp_path, recipe, few_pairs):
    arguments = ("train", "NETWORK", "--recipe", recipe(epochs=2), "--to", tmp_path / "one")
    found = run(*("vit(class_token=false,depth=2,embed_dim=12,global_pool=avg,in_chans=1,"
                  "num_classes=2,num_heads=2,patch_size=8)@16: V2" if a == "NETWORK" else a
                  for a in arguments))  # fmt: skip
    assert found.code == 0, found.err
    assert re.search(rf"train  V2  {ROW}", found.err), found.err
    assert "epoch 2/2  validating" in found.err
    assert "exported" in found.out


def test_a_terminal_has_a_row_for_each_slot(run, tiny, tmp_path, recipe, in_process, terminal):
    search(run, tiny, tmp_path, "--recipe", recipe(epochs=200), "--trials", 2, *SEARCH)
    assert any(
        re.search(r"^search 1 +\S+ +\d+/200 +(?:[\d,]+|validating) +\d\.\d{3}", line.rstrip())
        for line in terminal.lines
    ), terminal.text[-3000:]
    assert any(re.search(r"^running +placement +epoch +images/s", s) for s in terminal.lines)
    assert max(map(len, terminal.lines)) <= 80


def test_a_terminal_shows_a_single_training(run, tmp_path, recipe, few_pairs, terminal):
    network = (
        "vit(class_token=false,depth=2,embed_dim=12,global_pool=avg,in_chans=1,num_classes=2,"
        "num_heads=2,patch_size=8)@16: V2"
    )
    found = run("train", network, "--recipe", recipe(epochs=200), "--to", tmp_path / "one")
    assert found.code == 0
    pattern = r"^train +V2 +\d+/200 +(?:[\d,]+|validating) +\d\.\d{3} +\d+:\d\d +\d+:\d\d$"
    assert any(re.search(pattern, line.rstrip()) for line in terminal.lines)


def test_who_watches_changes_nothing(run, tiny, tmp_path, recipe, in_process, monkeypatch):
    def trials(name, every_s):
        monkeypatch.setattr("sharedattn.progress.EVERY_S", every_s)
        found = run(
            "search", tiny, "--recipe", recipe(drop_path_rate=0.1), "--trials", 6,
            "--workers", 2, "--deterministic", "--confirm-seeds", 2, "--out", tmp_path / name,
            "--json",
        )  # fmt: skip
        document = json.loads(found.out)
        return [(m["id"], m["placement"], m["top1_by_seed"]) for m in document["front"]]

    watched = trials("watched", 0.0)
    assert watched == trials("alone", 1e9)
    assert watched


@pytest.mark.slow
def test_real_workers_tell_a_real_terminal(tiny, tmp_path):
    """In processes of their own, through a pseudo-terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "sharedattn", "search", tiny, "--epochs", "40",
            "--trials", "2", "--workers", "2", "--confirm-seeds", "1", "--out", tmp_path / "out",
            # The two-layer networks: N1 can be trained within a second, between two drawings.
            "--min-macs", "10k",
        ],
        stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(theirs)
    text, deadline = b"", time.monotonic() + 120
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 1.0)[0]:
            try:
                text += os.read(ours, 65536)
            except OSError:
                break
    os.close(ours)
    assert process.wait(30) == 0, text.decode()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode())
    for number in range(2):
        row = rf"search {number} +\S+ +\d+/40 +(?:[\d,]+|validating) +\d\.\d{{3}} +\d+:\d\d"
        assert re.search(row, plain), plain
