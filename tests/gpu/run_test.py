"""tests/gpu/run.sh without a device says so and passes nothing; its programs build and refuse to start
without one."""

import pathlib
import shutil
import subprocess

import pytest

HAS_DEVICE = pathlib.Path("/dev/nvidiactl").exists()


@pytest.mark.skipif(HAS_DEVICE, reason="this machine has a GPU: run tests/gpu/run.sh itself")
def test_everything_is_skipped_without_device(root):
    done = subprocess.run([root / "tests/gpu/run.sh"], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert lines == ["gpu: skipped: no NVIDIA device on this machine",
                     "0 passed, 0 failed, 6 skipped"]


@pytest.fixture(scope="module")
def build_dir(bin_dir) -> pathlib.Path:
    """The CMake build that the tests' programs are from, if it has the CUDA language."""
    cache = bin_dir.parent / "CMakeCache.txt"
    if not cache.exists() or not shutil.which("cmake"):
        pytest.skip(f"{bin_dir} is not in a build of CMake")
    if "STRUCTATTN_NVCC:FILEPATH=/" not in cache.read_text(encoding="utf-8"):
        pytest.skip("built without nvcc")
    return bin_dir.parent


@pytest.mark.slow
@pytest.mark.skipif(HAS_DEVICE, reason="this machine has a GPU: run tests/gpu/run.sh itself")
def test_programs_build_and_name_the_missing_device(build_dir):
    subprocess.run(["cmake", "--build", build_dir, "--target", "gpu_tests", "gpu_bench"], check=True,
                   capture_output=True)
    bench = subprocess.run([build_dir / "bin/gpu_bench"], capture_output=True, text=True, check=False)
    assert (bench.returncode, bench.stdout) == (77, "skipped: no CUDA device\n")
    tests = subprocess.run([build_dir / "bin/gpu_tests", "--gtest_filter=*RmsNorm*"],
                           capture_output=True, text=True, check=False)
    assert tests.returncode == 1 and "cudaHostRegister" in tests.stdout
