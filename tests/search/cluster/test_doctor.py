"""What `sharedattn doctor` finds: a machine that is ready, and each thing that may be wrong."""

import json
import os
import re
import sqlite3
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from packaging.specifiers import SpecifierSet
from PIL import Image
from sqlalchemy.engine import make_url

import sharedattn.search.executors.ray
from sharedattn.errors import InputError
from sharedattn.plugins import Plugin
from sharedattn.results.database import migrations
from sharedattn.results.database.store import Store
from sharedattn.search.cli.main import main
from sharedattn.search.cluster import doctor
from sharedattn.search.cluster.node_checks import worker_versions

# timm 1.0.31 leaves closing an image's file to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    for split, per_class in (("train", 10), ("val", 2), ("test", 3)):
        for name in ("ant", "bee"):
            folder = tmp_path / "animals" / split / name
            folder.mkdir(parents=True)
            for i in range(per_class):
                pixels = rng.integers(0, 256, (5, 5, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "animals"


@pytest.fixture
def examine(tmp_path, data, capsys):
    """Runs the command; its exit code and its checks by name."""

    def run(*arguments):
        given = ("--data", str(data), "--out", str(tmp_path / "out"), *arguments)
        capsys.readouterr()  # what a cluster has said as it started
        code = main(["doctor", "--json", *given])
        captured = capsys.readouterr()
        assert captured.err == ""
        document = json.loads(captured.out)
        assert document["ok"] == all(check["ok"] for check in document["checks"])
        assert code == (0 if document["ok"] else 1)
        checks = {check["name"]: check for check in document["checks"]}
        assert len(checks) == len(document["checks"])
        return checks

    return run


def failing(checks):
    return {name: check["found"] for name, check in checks.items() if not check["ok"]}


def test_unlabelled_images_have_no_classes(examine, tmp_path):
    for i in range(23):
        pixels = np.random.default_rng(i).integers(0, 256, (7, 7, 3)).astype(np.uint8)
        (tmp_path / "plain").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "plain" / f"{i}.png")
    plain = ("--data", str(tmp_path / "plain"))
    assert not examine(*plain)["data"]["ok"]
    found = examine(*plain, "--task", "denoise")["data"]
    assert found["ok"]
    assert re.fullmatch(r"plain: \d+ training, \d+ validation and \d+ test images", found["found"])


def test_this_machine_is_ready_and_nothing_is_made(examine, tmp_path):
    checks = examine()
    assert failing(checks) == {}
    assert checks["python"]["found"] == ".".join(map(str, sys.version_info[:3]))
    assert checks["timm"] == {
        "name": "timm",
        "expected": "<1.1,>=1.0.31",
        "found": timm.__version__,
        "ok": True,
    }
    cores = len(os.sched_getaffinity(0))
    assert checks["processor"]["found"].startswith(f"{cores} cores of ")
    assert checks["data"]["found"].startswith(
        "animals: 20 training, 4 validation and 6 test images of 2 classes"
    )
    total_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert checks["memory"]["found"].startswith(f"{total_bytes / 2**30:.1f} GiB, ")
    assert re.fullmatch(rf"[\d.]+ GiB free at {tmp_path}", checks["disk"]["found"])
    assert checks["weights"]["found"] == str(tmp_path / "out" / "weights")
    assert checks["trials at once"]["found"].endswith("CPU")
    assert not (tmp_path / "out").exists()


def test_people_get_a_table(tmp_path, data, capsys):
    assert main(["doctor", "--data", str(data), "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^ok +timm +<1.1,>=1.0.31 +1\.0\.\d+ *$", out, re.MULTILINE)
    assert out.endswith("ready\n")
    assert main(["doctor", "--data", "/nowhere", "--out", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^NO +data +opens +", out, re.MULTILINE)
    assert out.endswith("not ready\n")


def test_options_that_mean_nothing_are_bad_input(capsys):
    assert main(["doctor", "--resources-per-trial", "tpu=1"]) == 2
    assert "--resources-per-trial requires --executor ray" in capsys.readouterr().err


def test_a_library_that_the_package_does_not_go_with(examine, monkeypatch):
    wanted = {
        "timm": SpecifierSet("<1"),
        "fvcore": SpecifierSet(">=99"),
        "no-such-library": SpecifierSet(),
    }
    monkeypatch.setattr(doctor, "_wanted", lambda: dict(wanted))
    checks = examine()
    assert set(failing(checks)) == {"timm", "fvcore", "no-such-library"}
    assert checks["timm"]["expected"] == "<1"
    assert checks["no-such-library"]["found"] == "not installed"
    assert checks["torch"]["expected"] == "any"


def test_plug_ins_are_listed_and_must_go_together(examine, monkeypatch):
    # Of the tests' own plug-in.
    assert examine()["plugin sharedattn-extras"]["found"] == "0.3.1"
    monkeypatch.setattr(doctor, "installed", lambda: (Plugin("poolers", "1.2"),))
    checks = examine()
    assert failing(checks) == {}
    assert checks["plugin poolers"]["found"] == "1.2"
    assert checks["mechanisms"]["found"] == (
        "V, L, E, N, X, S, dia, se, eca, cbam, gc, srm, sge, squeeze"
    )

    def clash():
        raise InputError("the plug-in poolers 1.2 takes the letter V")

    monkeypatch.setattr(doctor, "registry", clash)
    assert failing(examine()) == {"mechanisms": "the plug-in poolers 1.2 takes the letter V"}


def test_a_disk_that_is_nearly_full(examine, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**29))
    found = failing(examine())
    assert found.keys() == {"disk"}
    assert found["disk"].startswith("0.5 GiB free at ")


def test_a_weights_folder_that_cannot_be_written(examine, tmp_path):
    (tmp_path / "file").touch()
    found = failing(examine("--weights-dir", str(tmp_path / "file" / "weights")))
    assert found.keys() == {"weights"}
    assert "files cannot be written to" in found["weights"]


def test_a_trial_needs_a_core(capsys):
    assert main(["doctor", "--cpus-per-trial", "0"]) == 2
    assert "`--cpus-per-trial` is a whole number from 1 to" in capsys.readouterr().err


def test_a_device_that_the_machine_lacks(examine, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert failing(examine("--device", "cuda")) == {
        "trials at once": "`--device cuda` requires a CUDA device, but torch finds none"
    }


def test_the_database_is_looked_at_with_who_drives_its_studies(examine, tmp_path):
    from lab import Lab

    file = tmp_path / "studies.db"
    url = f"sqlite:///{file}"
    assert examine("--storage", url)["database"]["found"] == (
        f"{url}: empty, a search makes its tables"
    )
    assert not file.exists()
    lab = Lab(tmp_path, SimpleNamespace(macs_range=(1, 2)))
    with Store.open(url, create=True) as store:
        for name in ("animals", "plants"):
            study = store.get_or_create_study(lab.record(name, "random", 2, 1, 3))
        assert examine("--storage", url)["database"]["found"] == f"{url}: 2 studies"
        with store.drive(study):
            found = examine("--storage", url)["database"]["found"]
    assert found == f"{url}: 2 studies; 'plants' is being searched by process {os.getpid()}"
    with sqlite3.connect(file) as connection:
        connection.execute(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '0001'")
    connection.close()
    assert examine("--storage", url)["database"]["found"] == (
        f"{url}: older, the next search upgrades it"
    )


def test_a_database_that_no_search_could_use(examine, tmp_path):
    (tmp_path / "notes.txt").write_text("the cat sat on the mat\n" * 99)
    found = failing(examine("--storage", f"sqlite:///{tmp_path / 'notes.txt'}"))
    assert found.keys() == {"database"} and "file is not a database" in found["database"]
    # Nothing listens on port 1.
    found = failing(examine("--storage", "postgresql://me:s3cret@127.0.0.1:1/studies"))
    assert found.keys() == {"database"} and "Connection refused" in found["database"]
    assert "me:***@127.0.0.1:1/studies" in found["database"] and "s3cret" not in str(found)


@pytest.mark.slow
def test_a_role_without_rights_on_a_server(examine, postgresql_server, postgresql_url):
    url = make_url(postgresql_url)
    shown = url.set(drivername="postgresql+psycopg").render_as_string(hide_password=True)
    guest = url.set(username="guest", password="guest").render_as_string(hide_password=False)
    postgresql_server.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    assert examine("--storage", postgresql_url)["database"]["found"] == (
        f"{shown}: empty, a search makes its tables"
    )
    assert "does not grant CREATE" in failing(examine("--storage", guest))["database"]
    Store.open(postgresql_url, create=True).close()
    assert examine("--storage", postgresql_url)["database"]["found"] == f"{shown}: 0 studies"
    assert "permission denied for table" in failing(examine("--storage", guest))["database"]
    postgresql_server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest", url.database)
    found = failing(examine("--storage", guest))["database"]
    assert "the user may not write the database" in found
    postgresql_server.execute("DROP OWNED BY guest", url.database)
    postgresql_server.execute("DROP ROLE guest")


def test_a_product_is_compared_with_the_processor_s(monkeypatch):
    doctor._multiply(torch.device("cpu"))
    monkeypatch.setattr(doctor.torch, "equal", lambda *_: False)
    with pytest.raises(RuntimeError, match="product of matrices on cpu differs"):
        doctor._multiply(torch.device("cpu"))


def test_a_gpu_is_named_with_its_versions(examine, monkeypatch, tmp_path):
    driver = tmp_path / "version"
    driver.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build\n"
        "GCC version:  gcc version 12.3.0\n"
    )
    gpu = SimpleNamespace(name="GPU of a test", total_memory=80 * 2**30)
    monkeypatch.setattr(doctor, "_NVIDIA_DRIVER", driver)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (79 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(doctor, "_multiply", lambda device: None)
    checks = examine("--device", "cpu")
    assert checks["GPU 1"]["found"] == (
        "GPU of a test; 80.0 GiB, 79.0 GiB of it free; CUDA 12.8; driver 570.124.06"
    )

    def fail(device):
        raise RuntimeError("CUDA error: an illegal memory access\nwas encountered")

    monkeypatch.setattr(doctor, "_multiply", fail)
    illegal = "CUDA error: an illegal memory access was encountered"
    assert failing(examine("--device", "cpu")) == {"GPU 0": illegal, "GPU 1": illegal}


@pytest.mark.gpu
# What it tests is on a GPU alone; where there is one it runs with all the others.
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_gpu_multiplies(examine):
    checks = examine()
    gpus = [checks[f"GPU {i}"] for i in range(torch.cuda.device_count())]
    assert gpus and all(check["ok"] for check in gpus)


class Cluster:
    """Two nodes in this process, in place of the module that talks to Ray."""

    def __init__(self):
        self.is_connected = False
        self.second = {}

    def connect(self, address):
        if address != "head:6379":
            raise InputError(f"`--address` is {address!r}, which cannot be reached")
        self.is_connected = True

    def disconnect(self):
        self.is_connected = False

    def node_resources(self):
        own = {"node:10.0.0.1": 1.0, "memory": 3.5 * 2**30, "object_store_memory": 1e9}
        return {"one": {"CPU": 4.0, **own}, "two": {"CPU": 0.0, "GPU": 2.0, **own}}

    def has_gpus(self):
        return False

    def trial_slots(self, resources, num_workers):
        if resources.gpus:
            raise InputError("no node of the cluster has what a trial asks for")
        return num_workers or 4 // resources.cpus

    def on_every_node(self, function, *args, timeout_s):
        assert self.is_connected
        answers = {}
        for node, overridden in (("one", {}), ("two", self.second)):
            try:
                answers[node] = overridden.get(function.__name__, function)(*args)
            except Exception as error:
                answers[node] = error
        return answers


@pytest.fixture
def cluster(monkeypatch):
    found = Cluster()
    monkeypatch.setattr(sharedattn.search.executors.ray, "executor", found, raising=False)
    return found


def test_a_cluster_is_ready(examine, cluster):
    checks = examine("--address", "head:6379", "--cpus-per-trial", "2")
    assert failing(checks) == {}
    assert checks["cluster"]["found"] == "one: 4 CPU, 3.5 GiB; two: 2 GPU, 3.5 GiB"
    assert checks["trials at once"]["found"] == "2, each with 2 CPU"
    for name in ("versions", "data on the nodes", "weights on the nodes"):
        assert checks[name]["found"] == "one, two"
    assert checks["clocks"]["found"] == "one 0.0 s, two 0.0 s"
    assert not cluster.is_connected


def test_a_cluster_that_is_not_there(examine, cluster):
    found = failing(examine("--address", "nowhere:1"))
    assert found == {"cluster": "`--address` is 'nowhere:1', which cannot be reached"}


def test_all_that_is_wrong_with_a_cluster_is_told_at_once(examine, cluster, tmp_path):
    cluster.second = {
        "worker_versions": lambda: {**worker_versions(), "numpy": "1.0"},
        "data_fingerprint": lambda _: "0" * 64,
        "answer_note": lambda *_: None,
        "_now": lambda: time.time() + 90,
    }
    checks = examine("--address", "head:6379", "--gpus-per-trial", "0.5")
    found = failing(checks)
    assert found.keys() == {
        "trials at once",
        "versions",
        "data on the nodes",
        "weights on the nodes",
        "clocks",
    }
    assert found["clocks"].startswith("one 0.0 s, two ")
    seconds = float(found["clocks"].split()[-2])
    assert 80 < seconds <= 90.1
    assert not cluster.is_connected


def test_what_the_driver_lacks_is_not_asked_of_the_nodes(examine, cluster, tmp_path):
    (tmp_path / "file").touch()
    options = ("--data", "/nowhere", "--weights-dir", str(tmp_path / "file" / "weights"))
    checks = examine("--address", "head:6379", *options)
    assert failing(checks).keys() == {"data", "weights"}
    assert not {"data on the nodes", "weights on the nodes"} & checks.keys()


def test_a_node_that_cannot_tell_its_time(examine, cluster):
    def fail():
        raise TimeoutError("no answer in 120 s")

    cluster.second = {"_now": fail}
    assert failing(examine("--address", "head:6379")) == {
        "clocks": "one 0.0 s, two does not answer: no answer in 120 s"
    }
