"""The Python client under every interpreter of this machine: installed by pip from the tree, an sdist
and a wheel, with the newest and with the oldest packages that it says it runs with.

Collected by pytest (tests/run.sh); fixtures in tests/conftest.py. Packages come from PyPI. Looks for
interpreters from 3.10 on in pyenv's folder and on PATH; the ids of the tests name those found.
"""

import glob
import os
import pathlib
import re
import shutil
import subprocess
import zipfile

import pytest

pytestmark = pytest.mark.slow

OLDEST = (3, 10)
PYENV = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
ASK = """
import sys, structattn
prompt = {"segments": [structattn.question("What is red?", 0), structattn.answer_cue("It is")]}
with structattn.Client(sys.argv[1]) as client:
    answer = client.generate(prompt, max_tokens=3, ignore_eos=True)
    assert len(answer.token_ids) == 3, answer
    try:
        client.generate(prompt, model="other")
        raise AssertionError("the model is not there")
    except structattn.StructattnError as error:
        assert error.field == "model", error
print(structattn.__version__)
"""


def find_interpreters():
    """{"3.12.1": path}, one for each version."""
    found = {}
    paths = glob.glob(f"{PYENV}/versions/*/bin/python3")
    paths += filter(None, (shutil.which(f"python3.{minor}") for minor in range(10, 30)))
    for path in paths:
        asked = subprocess.run([path, "-c", "import ensurepip, platform as p; print(p.python_version())"],
                               capture_output=True, text=True, check=False)
        version = re.match(r"(\d+)\.(\d+)\.\d+$", asked.stdout.strip())
        if version and tuple(map(int, version.groups())) >= OLDEST:
            found.setdefault(version.group(), path)
    return dict(sorted(found.items(), key=lambda item: [int(part) for part in item[0].split(".")]))


INTERPRETERS = find_interpreters()


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False,
                          timeout=600, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Venv:
    def __init__(self, interpreter, folder):
        run(interpreter, "-m", "venv", folder)
        self.python = folder / "bin/python"
        self.folder = folder

    def install(self, *arguments):
        run(self.python, "-m", "pip", "install", "--disable-pip-version-check", *arguments)

    def ask(self, server):
        """Far from the sources; warnings count as failures."""
        return run(self.python, "-W", "error", "-c", ASK, server.address, cwd=self.folder).strip()


@pytest.fixture(scope="module")
def distributions(python_sources, tmp_path_factory):
    """The sdist and the wheel made of it by `python -m build`."""
    folder = tmp_path_factory.mktemp("build")
    venv = Venv(next(iter(INTERPRETERS.values())), folder / "venv")
    venv.install("build")
    run(venv.python, "-m", "build", python_sources, "--outdir", folder / "dist")
    sdist, = (folder / "dist").glob("*.tar.gz")
    wheel, = (folder / "dist").glob("*.whl")
    return sdist, wheel


def floors(wheel):
    """The oldest version of each package that the metadata allows, as pip takes them."""
    with zipfile.ZipFile(wheel) as archive:
        name, = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = archive.read(name).decode()
    return [re.sub(r">=([\d.]+)", r"==\1", re.sub(r",?<[\d.]+", "", line)).strip(",").replace(",", "")
            for line in re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE)]


def test_there_is_an_interpreter():
    assert INTERPRETERS, f"no Python from {OLDEST} on, neither in {PYENV} nor on PATH"


@pytest.mark.parametrize("version", INTERPRETERS)
def test_pip_installs_it_from_the_tree(version, python_sources, tmp_path, server, project_version):
    venv = Venv(INTERPRETERS[version], tmp_path / "venv")
    venv.install(python_sources)
    assert venv.ask(server) == project_version


@pytest.mark.parametrize("version", INTERPRETERS)
def test_the_oldest_packages_that_it_allows_are_enough(version, distributions, tmp_path, server,
                                                       project_version):
    venv = Venv(INTERPRETERS[version], tmp_path / "venv")
    oldest = floors(distributions[1])
    assert len(oldest) == 3 and all("==" in one for one in oldest), oldest
    venv.install(distributions[1], *oldest)
    assert venv.ask(server) == project_version


def test_an_sdist_needs_no_tree(distributions, tmp_path, server, project_version):
    venv = Venv(list(INTERPRETERS.values())[-1], tmp_path / "venv")
    venv.install(distributions[0])
    assert venv.ask(server) == project_version


def test_an_editable_install_has_its_stubs(python_sources, tmp_path, server, project_version):
    copy = tmp_path / "tree"
    shutil.copytree(python_sources.parents[1], copy)
    venv = Venv(list(INTERPRETERS.values())[-1], tmp_path / "venv")
    venv.install("--editable", copy / "client/python")
    assert venv.ask(server) == project_version
