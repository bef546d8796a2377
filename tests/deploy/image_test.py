"""The Dockerfile without Docker: what it copies exists, and its steps do what they say.

The build step itself is the release build that tests/run.sh has just made; it is installed here as the
Dockerfile installs it, and run from a folder that is not the one it was built in.
"""

import re
import shutil
import subprocess

import pytest


def instructions(root):
    """(instruction, arguments) with continued lines joined and comments dropped."""
    text = (root / "Dockerfile").read_text()
    lines = "\n".join(line for line in text.split("\n") if not line.startswith("#"))
    joined = lines.replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in joined.split("\n") if line.strip()]


def copied_from_here(root):
    """Sources of every COPY that reads the build context."""
    for name, arguments in instructions(root):
        if name == "COPY" and "--from=" not in arguments:
            yield from arguments.split()[:-1]


def test_every_copied_source_exists(root):
    sources = list(copied_from_here(root))
    assert len(sources) > 5
    assert [source for source in sources if not (root / source).exists()] == []


def test_every_copied_source_is_in_the_context(root):
    """.dockerignore refuses everything but what it names with an exclamation mark."""
    kept = {line[1:] for line in (root / ".dockerignore").read_text().split("\n")
            if line.startswith("!")}
    for source in copied_from_here(root):
        path = source.rstrip("/")
        assert any(path == name or path.startswith(name + "/") or name.startswith(path + "/")
                   for name in kept), f"{source} is not in the context"


def test_context_has_every_folder_that_cmake_reads(root):
    """CMake adds and includes nothing (but tests) that the builder stage does not have."""
    copied = [source.rstrip("/") for source in copied_from_here(root)]
    text = (root / "CMakeLists.txt").read_text()
    needed = re.findall(r"add_subdirectory\((\w+)\)|include\((deploy/[\w/.]+)\)", text)
    for folder, script in needed:
        path = folder or script
        if path != "tests":
            assert any(path == name or path.startswith(name + "/") for name in copied), path


def commands(root):
    """The commands of every RUN, in order."""
    return [command.strip() for name, arguments in instructions(root) if name == "RUN"
            for command in arguments.split("&&")]


def test_builder_commands_are_the_documented_ones(root):
    found = commands(root)
    assert found[0] == "deploy/setup.sh --gpu"
    assert found[1:4] == [
        "cmake --preset release -DSTRUCTATTN_TESTS=OFF", "cmake --build --preset release",
        "cmake --install build/release --prefix /opt/structattn --strip"]


def test_runtime_is_not_root(root):
    user = [arguments for name, arguments in instructions(root) if name == "USER"]
    assert user == ["10001:10001"]


def test_label_has_the_version_of_the_project(root, project_version):
    label, = [arguments for name, arguments in instructions(root) if name == "LABEL"]
    assert f'org.opencontainers.image.version="{project_version}"' in label


@pytest.fixture(scope="module")
def installed(root, bin_dir, tmp_path_factory):
    """What the builder stage installs, moved away from where it was installed."""
    prefix = tmp_path_factory.mktemp("installed") / "first"
    subprocess.run(["cmake", "--install", bin_dir.parent, "--prefix", prefix], check=True,
                   capture_output=True)
    moved = prefix.with_name("moved")
    prefix.rename(moved)
    yield moved
    shutil.rmtree(moved)


def libraries(binary):
    listing = subprocess.run(["ldd", binary], check=True, capture_output=True, text=True, env={})
    return listing.stdout


@pytest.mark.slow
@pytest.mark.parametrize("program", ["structattn-server", "structattn"])
def test_installed_program_runs_where_it_is_moved(installed, program):
    result = subprocess.run([installed / "bin" / program, "--help"], capture_output=True, text=True,
                            env={"PATH": ""}, check=True)
    assert "--model" in result.stdout


@pytest.mark.slow
def test_installed_server_brings_its_libtorch(root, installed):
    server = libraries(installed / "bin/structattn-server")
    assert "not found" not in server
    for name in ("libtorch_cpu.so", "libc10.so", "libcudart.so.13"):
        assert re.search(rf"{re.escape(name)} => {installed}/", server), server
    assert str(root) not in server


@pytest.mark.slow
def test_licences_travel_along(installed):
    licences = list((installed / "share/licenses").rglob("*"))
    assert (installed / "share/licenses/structattn/LICENSE").exists()
    assert any("torch" in str(path) for path in licences)


@pytest.mark.slow
def test_runtime_packages_hold_every_other_library(root, installed):
    """Each system library of the programs is in a package that the runtime stage installs, or in one
    that those, or the base image, depend on."""
    install = next(command for command in commands(root) if "apt-get install" in command)
    named = [word for word in install.split() if word.startswith("lib")]
    closure = subprocess.run(
        ["apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts",
         "--no-breaks", "--no-replaces", "--no-enhances", *named, "libc6"],
        check=True, capture_output=True, text=True).stdout
    allowed = {line.strip() for line in closure.split("\n") if line and line[0] != " "}
    for program in ("structattn-server", "structattn"):
        for path in re.findall(r"=> (/(?:usr/)?lib/\S+)", libraries(installed / "bin" / program)):
            owner = package_of(path)
            assert owner in allowed, f"{path} of {owner}"


def package_of(path):
    """Debian's package of a library; dpkg knows some by their path without /usr."""
    for name in (path, path.removeprefix("/usr"), "/usr" + path):
        found = subprocess.run(["dpkg", "-S", name], capture_output=True, text=True)
        if found.returncode == 0:
            return found.stdout.split(":")[0]
    return f"no package ({path})"
