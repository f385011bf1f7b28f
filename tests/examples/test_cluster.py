"""What the documentation of clusters tells people to run: scripts, manifests, command lines."""

import json
import re
import shlex
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from sharedattn.search.cli.arguments import parser

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "cluster"
PAGE = ROOT / "docs" / "guide" / "clusters.md"
SCRIPTS = sorted(FOLDER.glob("*.sh"))

# Of the custom resource definition of RayJob, ray.io/v1, in KubeRay at commit feeaf72.
RAY_JOB = set(
    "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint "
    "entrypointNumCpus entrypointNumGpus entrypointResources jobId managedBy metadata "
    "preRunningDeadlineSeconds rayClusterSpec runtimeEnvYAML shutdownAfterJobFinishes "
    "submissionMode submitterConfig submitterPodTemplate suspend ttlSecondsAfterFinished".split()
)
RAY_CLUSTER = set(
    "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec "
    "headServiceAnnotations historyServerOptions managedBy networkPolicy rayVersion suspend "
    "tlsOptions upgradeStrategy workerGroupSpecs".split()
)
HEAD = set(
    "enableIngress headService ingressOptions labels rayStartParams resources serviceType "
    "template".split()
)
WORKERS = set(
    "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts priority "
    "rayStartParams replicas resources scaleStrategy suspend template".split()
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_one(script):
    assert script.stat().st_mode & 0o111
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_cluster_yaml_is_what_ray_s_schema_says():
    jsonschema = pytest.importorskip("jsonschema")
    pytest.importorskip("ray")
    schema = json.loads((files("ray") / "autoscaler" / "ray-schema.json").read_text())
    document = yaml.safe_load((FOLDER / "ray-cluster.yaml").read_text())
    jsonschema.validate(document, schema)
    assert document["max_workers"] == len(document["provider"]["worker_ips"])
    for source in document["file_mounts"].values():
        assert (ROOT / source / "pyproject.toml").is_file()


def test_the_manifest_has_the_keys_of_kuberay():
    document = yaml.safe_load((FOLDER / "kuberay-job.yaml").read_text())
    assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", "RayJob")
    job = document["spec"]
    cluster = job["rayClusterSpec"]
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    for given, known in (
        (job, RAY_JOB),
        (cluster, RAY_CLUSTER),
        (head, HEAD),
        (workers, WORKERS),
    ):
        assert set(given) <= known
    assert {"groupName", "minReplicas", "maxReplicas", "template"} <= set(workers)
    # Values of `rayStartParams` are options of a command line, so they are strings.
    assert all(isinstance(value, str) for value in head["rayStartParams"].values())
    # Whatever the command names in the shared folder, every node has mounted.
    for group in (head, workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        (mount,) = container["volumeMounts"]
        assert (mount["mountPath"], mount["name"]) == ("/shared", pod["volumes"][0]["name"])


def commands():
    """Every command line of ours in the page and in the manifest, `ray job submit`'s too."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    manifest = yaml.safe_load((FOLDER / "kuberay-job.yaml").read_text())
    for line in [*lines, manifest["spec"]["entrypoint"]]:
        words = shlex.split(line, comments=True)
        if "--" in words:  # what `ray job submit` runs: python -m sharedattn ...
            words = words[words.index("--") + 3 :]
        if "slurm.sh" in line:
            words = ["sharedattn", "search", *words[2:]]
        if words[:1] == ["sharedattn"]:
            yield words[1:]


def test_the_command_lines_are_understood():
    found = [parser().parse_args(words) for words in commands()]
    assert {arguments.command for arguments in found} == {"search", "doctor", "front"}
    assert len(found) == 8


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", PAGE.read_text())
    assert links
    for link in links:
        assert (PAGE.parent / link).exists(), link
