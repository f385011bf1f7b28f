"""What nodes are asked before a search: simulated nodes, and two real ones."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sharedattn.data import DataConfig, open_data
from sharedattn.errors import InputError
from sharedattn.plugins import Plugin
from sharedattn.results.artifacts.blobs import BlobStore
from sharedattn.search.cli.main import main
from sharedattn.search.cluster import node_checks as nodes
from sharedattn.search.cluster.node_checks import (
    answer_note,
    check_cluster,
    data_fingerprint,
    node_checks,
    worker_versions,
)

# timm 1.0.31 leaves closing an image's file to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def write_images(folder, seed):
    rng = np.random.default_rng(seed)
    for name in ("ant", "bee"):
        (folder / "train" / name).mkdir(parents=True)
        for i in range(5):
            pixels = rng.integers(0, 256, (5, 5, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "train" / name / f"{i}.png")
    return DataConfig(name=str(folder), image_size=5, val_fraction=0.4)


@pytest.fixture
def data(tmp_path):
    return write_images(tmp_path / "animals", seed=0)


@pytest.fixture
def blobs(tmp_path):
    return BlobStore(str(tmp_path / "weights"))


def cluster(**second):
    """Asks two nodes in this process; the second one does some functions in a way of its own."""

    def ask(function, *args, timeout_s):
        assert timeout_s > 0
        answers = {}
        for node, call in (("one", function), ("two", second.get(function.__name__, function))):
            try:
                answers[node] = call(*args)
            except Exception as error:
                answers[node] = error
        return answers

    return ask


def raising(error):
    def call(*args):
        raise error

    return call


def test_nodes_that_are_alike_pass_and_nothing_is_left_behind(tmp_path, data, blobs):
    checks = list(node_checks(cluster(), data, blobs))
    assert [(check.name, check.ok) for check in checks] == [
        ("versions", True),
        ("data on the nodes", True),
        ("weights on the nodes", True),
    ]
    assert {check.found for check in checks} == {"one, two"}
    assert [path for path in (tmp_path / "weights").rglob("*") if path.is_file()] == []
    assert [check.name for check in node_checks(cluster(), None, None)] == ["versions"]


def test_versions_name_python_s_minor_the_libraries_and_the_code_but_not_the_driver_s():
    versions = worker_versions()
    assert versions["python"].count(".") == 1
    assert {"torch", "timm", "numpy", "sharedattn", "sharedattn's code"} <= set(versions)
    assert "optuna" not in versions
    assert len(versions["sharedattn's code"]) == 12


def test_the_code_s_digest_follows_every_module(tmp_path, monkeypatch):
    for name in ("search", "results", "spaces", "sharedattn"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "module.py").write_text("x = 1\n")

    class Found:
        def __init__(self, name):
            self.origin = str(tmp_path / name.split(".")[-1] / "__init__.py")

    def digest():
        nodes._code_digest.cache_clear()
        return nodes._code_digest()

    monkeypatch.setattr(nodes, "find_spec", Found)
    digests = [digest(), digest()]
    (tmp_path / "spaces" / "deep" / "module.py").write_text("x = 2\n")
    digests.append(digest())
    (tmp_path / "spaces" / "deep" / "module.py").rename(tmp_path / "spaces" / "module.py")
    digests.append(digest())
    nodes._code_digest.cache_clear()
    # As installed, the rooms lie inside the package.
    for name in ("search", "results", "spaces"):
        (tmp_path / name).rename(tmp_path / "sharedattn" / name)
    monkeypatch.setattr(
        nodes, "find_spec", lambda name: Found(name.replace("sharedattn.", "sharedattn/"))
    )
    assert digest() == digests[-1]
    nodes._code_digest.cache_clear()
    assert len(set(digests)) == 3 and digests[0] == digests[1]


def failing(ask, data, blobs):
    """The checks that fail, by name."""
    checks = list(node_checks(ask, data, blobs))
    return {check.name: check.found for check in checks if not check.ok}


def test_a_node_with_other_versions_is_named_with_those_that_differ(data, blobs):
    theirs = {**worker_versions(), "torch": "2.13.0"}
    del theirs["timm"]
    found = failing(cluster(worker_versions=lambda: theirs), data, blobs)
    ours = worker_versions()
    assert found == {
        "versions": f"two has torch 2.13.0 instead of {ours['torch']}, "
        f"timm not installed instead of {ours['timm']}"
    }


def test_a_node_whose_plug_ins_differ_is_named(data, blobs, monkeypatch):
    monkeypatch.setattr(nodes, "installed", lambda: (Plugin("poolers", "1.2"), Plugin("se", "3")))
    ours = worker_versions()
    assert ours["plugin poolers"] == "1.2" and ours["plugin se"] == "3"
    assert failing(cluster(), None, None) == {}
    theirs = {**ours, "plugin poolers": "1.3", "plugin more": "0.1"}
    del theirs["plugin se"]
    found = failing(cluster(worker_versions=lambda: theirs), None, None)
    assert found == {
        "versions": "two has plugin poolers 1.3 instead of 1.2, plugin se not installed instead "
        "of 3, plugin more 0.1 instead of not installed"
    }


def test_a_node_that_lacks_the_package_does_not_answer(data, blobs):
    error = ModuleNotFoundError("No module named\n 'sharedattn'")
    gone = {name: raising(error) for name in ("worker_versions", "data_fingerprint")}
    assert failing(cluster(**gone), data, None) == {
        "versions": "two does not answer: No module named 'sharedattn'",
        "data on the nodes": f"two cannot open {data.name!r}: No module named 'sharedattn'",
    }


def test_a_node_without_the_data_or_with_other_data(tmp_path, data, blobs):
    other = write_images(tmp_path / "plants", seed=1)
    ours, theirs = open_data(data).fingerprint[:12], open_data(other).fingerprint[:12]
    assert ours != theirs
    second = {"data_fingerprint": lambda _: data_fingerprint(other)}
    assert failing(cluster(**second), data, blobs) == {
        "data on the nodes": f"two has other data as {data.name!r}, of fingerprint {theirs} "
        f"instead of {ours}"
    }
    second = {"data_fingerprint": lambda _: data_fingerprint(replace(data, name="/nowhere"))}
    found = failing(cluster(**second), data, blobs)["data on the nodes"]
    assert found.startswith(
        f"two cannot open {data.name!r}: `--data` '/nowhere' is no folder here"
    )


def test_a_folder_of_equal_name_on_a_node_s_own_disk_is_found_out(tmp_path, data, blobs):
    own = BlobStore(str(tmp_path / "own"))
    second = {"answer_note": lambda _, note: answer_note(own, note)}
    advice = "; set --weights-dir to a folder or URL that all nodes share"
    assert failing(cluster(**second), data, blobs) == {
        "weights on the nodes": f"two sees another folder as {blobs.url}{advice}"
    }
    assert not (tmp_path / "own").exists()
    # One that reads what the driver writes, as a copy would let it, and writes to itself.
    second = {"answer_note": lambda _, note: f"{note}-elsewhere"}
    assert failing(cluster(**second), data, blobs) == {
        "weights on the nodes": f"two writes elsewhere than to {blobs.url}{advice}"
    }
    second = {"answer_note": raising(PermissionError(13, "Permission denied"))}
    found = failing(cluster(**second), data, blobs)["weights on the nodes"]
    assert found == f"two cannot use {blobs.url}: [Errno 13] Permission denied{advice}"
    assert [path for path in (tmp_path / "weights").rglob("*") if path.is_file()] == []


@pytest.mark.slow
@pytest.mark.ray
def test_two_real_nodes(ray_cluster, tmp_path, data, blobs, monkeypatch, capsys):
    from sharedattn.search.executors.ray import executor as ray_tune

    address = ray_cluster.address
    for name, value in ray_tune.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    ours = ("--data", data.name, "--weights-dir", blobs.url, "--out", str(tmp_path / "out"))
    capsys.readouterr()
    assert main(["doctor", "--address", address, "--json", *ours]) == 0
    output = json.loads(capsys.readouterr().out)
    found = {check["name"]: check["found"] for check in output["checks"]}
    nodes_found = found["versions"].split(", ")
    assert len(set(nodes_found)) == 2
    assert found["versions"] == found["data on the nodes"] == found["weights on the nodes"]
    for node, resources in zip(nodes_found, found["cluster"].split("; "), strict=True):
        assert re.fullmatch(rf"{re.escape(node)}: .*\b1 CPU\b.*", resources)
    assert found["trials at once"] == "2, each with 1 CPU"

    ray_tune.connect(address)
    try:
        check_cluster(data, blobs)
        # The nodes' processes stand in another folder, so a relative name is another place.
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            with pytest.raises(InputError, match="share the weights' folder.*sees another folder"):
                check_cluster(data, BlobStore("weights"))
        with monkeypatch.context() as patch:
            theirs = {**nodes.library_versions(), "torch": "1.0"}
            patch.setattr(nodes, "library_versions", lambda: theirs)
            with pytest.raises(InputError, match="has the driver's versions.*instead of 1.0;"):
                check_cluster(data, blobs)
        # What the driver has opened already, the nodes cannot any more.
        absent = replace(data, val_fraction=0.2)
        assert open_data(absent).fingerprint
        (tmp_path / "animals").rename(tmp_path / "gone")
        with pytest.raises(InputError, match="driver's data.*cannot open.*is no folder here"):
            check_cluster(absent, blobs)
    finally:
        ray_tune.disconnect()
