"""Where the Python tests find what they test. Read by pytest; tests/run.sh sets the variables.

Nothing here builds or downloads: without its fixture's files a test is skipped, never passed.
"""

import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    """The project's folder."""
    return ROOT


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
