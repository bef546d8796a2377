"""The Python client under every interpreter of this machine: installed by pip from the tree, an
sdist and a wheel, with the newest packages and with the oldest that its metadata allows.

Collected by pytest (tests/run.sh); fixtures in tests/conftest.py. Packages come from PyPI.
Interpreters from 3.10 on are looked for in pyenv's folder and on PATH; the tests' ids name them.
"""

import glob
import os
import pathlib
import re
import shutil
import subprocess

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
        asked = subprocess.run([path, "-c", "import ensurepip, sys; print(sys.version.split()[0])"],
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
        run(self.python, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile",
            *arguments)

    def ask(self, server):
        """Far from the sources; warnings count as failures."""
        return run(self.python, "-W", "error", "-c", ASK, server.address, cwd=self.folder).strip()


def floors(venv):
    """The oldest version of each package that the metadata allows, as pip takes them."""
    lines = run(venv.python, "-c", "import importlib.metadata as metadata\n"
                "for line in metadata.requires('structattn'): print(line)").splitlines()
    return [re.match(r"([\w-]+).*?>=([\d.]+)", line).expand(r"\1==\2") for line in lines]


def test_there_is_an_interpreter():
    assert INTERPRETERS, f"no Python from {OLDEST} on, neither in {PYENV} nor on PATH"


@pytest.mark.parametrize("version", INTERPRETERS)
def test_pip_installs_it_from_the_tree(version, python_sources, tmp_path, server, project_version):
    """With the newest packages, and then with the oldest that it says are enough."""
    venv = Venv(INTERPRETERS[version], tmp_path / "venv")
    venv.install(python_sources)
    assert venv.ask(server) == project_version
    oldest = floors(venv)
    assert len(oldest) == 3, oldest
    venv.install(*oldest)
    run(venv.python, "-m", "pip", "check")
    assert venv.ask(server) == project_version


def test_an_sdist_and_a_wheel_need_no_tree(python_sources, tmp_path, server, project_version):
    venv = Venv(list(INTERPRETERS.values())[-1], tmp_path / "venv")
    venv.install("build")
    run(venv.python, "-m", "build", python_sources, "--outdir", tmp_path / "dist")
    sdist, = (tmp_path / "dist").glob("*.tar.gz")
    wheel, = (tmp_path / "dist").glob("*.whl")
    venv.install(sdist)
    assert venv.ask(server) == project_version
    venv.install("--force-reinstall", "--no-deps", wheel)
    assert venv.ask(server) == project_version


def test_an_editable_install_has_its_stubs(python_sources, tmp_path, server, project_version):
    copy = tmp_path / "tree"
    shutil.copytree(python_sources.parents[1], copy)
    venv = Venv(list(INTERPRETERS.values())[-1], tmp_path / "venv")
    venv.install("--editable", copy / "client/python")
    assert venv.ask(server) == project_version
