"""Where the Python tests find what they test. Read by pytest; tests/run.sh sets the variables.

Nothing here builds the programs or downloads: without its fixture's files a test is skipped, never
passed. The model is a small random one of tests/golden, which lie on the path for every test.
"""

import importlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "golden"))

import make_models  # noqa: E402
import serving  # noqa: E402

SMALL_MODEL = "smollm2-gqa3-d64-tied"
# Room for an answer that is still being written when a test ends it.
CONTEXT_LENGTH = 65536


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def project_version() -> str:
    """The version, from the one place that states it."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    return re.search(r"project\(structattn VERSION ([\d.]+)", text).group(1)


@pytest.fixture(scope="session")
def bin_dir() -> pathlib.Path:
    """The folder of structattn-server and structattn: STRUCTATTN_BIN, or the release build's."""
    folder = pathlib.Path(os.environ.get("STRUCTATTN_BIN", ROOT / "build/release/bin"))
    if not (folder / "structattn-server").exists():
        pytest.skip(f"no structattn-server in {folder}")
    return folder


@pytest.fixture(scope="session")
def models_dir() -> pathlib.Path:
    """The folder that tests/models/fetch.sh filled: STRUCTATTN_TEST_MODELS."""
    folder = os.environ.get("STRUCTATTN_TEST_MODELS")
    if not folder:
        pytest.skip("STRUCTATTN_TEST_MODELS is not set")
    return pathlib.Path(folder)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory) -> pathlib.Path:
    """A Hugging Face directory of a few megabytes, with a long context."""
    folder = make_models.make_model(tmp_path_factory.mktemp("models"), SMALL_MODEL)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["max_position_embeddings"] = CONTEXT_LENGTH
    path.write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def server(bin_dir, small_model, tmp_path_factory):
    """A server that all tests share; its one model is called `small`."""
    log = tmp_path_factory.mktemp("server") / "log"
    running = serving.Server(bin_dir, {"small": small_model}, log, ["--dtype", "float32"])
    yield running
    assert running.stop() == 0, running.log_text()[-3000:]


@pytest.fixture
def start_server(bin_dir, small_model, tmp_path):
    """start_server(*flags, models=None) runs a server of the test's own; ends it at any rate."""
    started = []

    def start(*flags, models=None):
        log = tmp_path / f"server{len(started)}.log"
        started.append(serving.Server(bin_dir, models or {"small": small_model}, log,
                                      ["--dtype", "float32", *flags]))
        return started[-1]

    yield start
    for running in started:
        running.kill()


@pytest.fixture
def cli(bin_dir):
    """cli(*arguments, stdin=None, server=None) runs the command line to its end; text in and out.

    server goes into STRUCTATTN_SERVER.
    """
    def run(*arguments, stdin=None, server=None):
        environment = dict(os.environ)
        environment.pop("STRUCTATTN_SERVER", None)
        if server is not None:
            environment["STRUCTATTN_SERVER"] = server.address
        done = subprocess.run([bin_dir / "structattn", *map(str, arguments)], check=False,
                              input=None if stdin is None else stdin.encode(),
                              capture_output=True, env=environment, timeout=serving.PATIENCE_S)
        # Not text=True, which would turn a carriage return of the model into a line feed.
        done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
        return done

    return run


@pytest.fixture(scope="session")
def python_sources(tmp_path_factory) -> pathlib.Path:
    """client/python in a copy of the tree, with what it is built from; pip writes beside sources."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("CMakeLists.txt", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "proto", copy / "proto")
    shutil.copytree(ROOT / "client/python", copy / "client/python",
                    ignore=shutil.ignore_patterns("v1", "build", "dist", "*.egg-info",
                                                  "__pycache__"))
    return copy / "client/python"


@pytest.fixture(scope="session")
def python_package(python_sources, tmp_path_factory) -> pathlib.Path:
    """A folder with the Python client as `pip install` leaves it."""
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--no-deps", "--no-index",
                           "--no-build-isolation", "--disable-pip-version-check", "--quiet",
                           "--target", target, python_sources],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="session")
def structattn(python_package):
    """The installed Python client, with its stubs as structattn.v1.*_pb2."""
    sys.path.insert(0, str(python_package))
    for stubs in ("inference_service_pb2_grpc", "model_service_pb2_grpc"):
        importlib.import_module(f"structattn.v1.{stubs}")
    return importlib.import_module("structattn")
