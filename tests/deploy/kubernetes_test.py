"""The manifests in deploy/kubernetes agree with the server, the image and each other."""

import pathlib
import re
import subprocess
import sys

import pytest
import yaml


@pytest.fixture(scope="module")
def manifests(root):
    found = {}
    for path in (root / "deploy/kubernetes").glob("*.yaml"):
        for manifest in yaml.safe_load_all(path.read_text()):
            found[manifest["kind"]] = manifest
    return found


@pytest.fixture(scope="module")
def pod(manifests):
    return manifests["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def server(pod):
    return pod["containers"][0]


@pytest.fixture(scope="module")
def flags(server):
    """The server's flags: name -> value."""
    return dict(argument.removeprefix("--").split("=", 1) for argument in server["args"])


def test_every_manifest_is_valid(root):
    paths = sorted((root / "deploy/kubernetes").glob("*.yaml"))
    assert len(paths) >= 3
    tool = pathlib.Path(sys.executable).with_name("kubernetes-validate")
    result = subprocess.run([tool, "--strict", *paths], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_server_knows_every_flag(bin_dir, flags):
    known = subprocess.run([bin_dir / "structattn-server", "--help"], check=True,
                           capture_output=True, text=True).stdout
    for flag in flags:
        assert re.search(rf"--{flag}\b", known), flag


def test_server_accepts_every_value(bin_dir, flags):
    """All flags as they are, but the model: its folder is missing here, which is the last complaint."""
    flags = flags | {"model": "default=/nowhere/model", "listen": "127.0.0.1:0", "device": "cpu"}
    result = subprocess.run([bin_dir / "structattn-server",
                             *(f"--{name}={value}" for name, value in flags.items())],
                            capture_output=True, text=True, timeout=60)
    assert result.returncode == 3, result.stderr


def test_probes_ask_the_port_that_is_served(server, flags):
    port = int(flags["listen"].rsplit(":", 1)[1])
    assert [entry["containerPort"] for entry in server["ports"]] == [port]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["grpc"]["port"] == port


def test_service_reaches_the_pod(manifests, server):
    spec = manifests["Service"]["spec"]
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert spec["selector"].items() <= labels.items()
    assert spec["ports"][0]["targetPort"] in [entry["name"] for entry in server["ports"]]


def test_drain_fits_into_the_grace_period(pod, server, flags):
    readiness = server["readinessProbe"]
    noticed_s = readiness["periodSeconds"] * readiness["failureThreshold"]
    delay_s = int(flags["drain-delay-seconds"])
    assert delay_s > noticed_s
    assert pod["terminationGracePeriodSeconds"] > delay_s + int(flags["drain-timeout-seconds"])


def test_volume_is_the_claim(manifests, pod, server):
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]
              if "persistentVolumeClaim" in volume]
    assert claims == [manifests["PersistentVolumeClaim"]["metadata"]["name"]]
    mounts = {mount["name"]: mount["mountPath"] for mount in server["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}


def test_pod_has_no_rights(root, pod, server):
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    context = server["securityContext"]
    assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
    assert context["capabilities"]["drop"] == ["ALL"]
    assert f"USER {pod['securityContext']['runAsUser']}:" in (root / "Dockerfile").read_text()


def test_image_is_of_this_version(server, project_version):
    assert server["image"].rsplit(":", 1)[1] == project_version
