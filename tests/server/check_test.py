"""What structattn-server says of a model before it serves it: --check, the limits of its machine,
and digests that tell models apart.

Collected by pytest (tests/run.sh); fixtures in tests/conftest.py.
"""

import json
import os
import shutil
import subprocess

import pytest

import serving


@pytest.fixture
def check(bin_dir):
    """check(path, *flags) runs --check; its exit code and its facts."""
    def run(path, *flags, cpus=None):
        pin = None if cpus is None else lambda: os.sched_setaffinity(0, cpus)
        done = subprocess.run([bin_dir / "structattn-server", "--check", path, *map(str, flags)],
                              capture_output=True, text=True, encoding="utf-8", check=False,
                              timeout=serving.PATIENCE_S, preexec_fn=pin)
        return done.returncode, dict(line.split(": ", 1) for line in done.stdout.splitlines())

    return run


def test_check_says_how_a_model_loads(check, small_model):
    code, facts = check(small_model, "--dtype", "bfloat16", "--threads", 2)
    config = json.loads((small_model / "config.json").read_text("utf-8"))
    assert (code, facts["loads"], facts["path"]) == (0, "yes", str(small_model))
    assert facts["what"] == "Hugging Face folder with 1 file of weights"
    assert facts["context length"] == f"{config['max_position_embeddings']} tokens"
    assert facts["device"] == "cpu, 2 CPU threads" and facts["dtype"] == "bfloat16"
    assert facts["weights"].endswith(" MiB as bfloat16")
    assert facts["KV memory"].endswith(" tokens")
    ends = config["eos_token_id"] if isinstance(config["eos_token_id"], list) else [
        config["eos_token_id"]]
    for end in ends:
        assert str(end) in facts["ends of generation"].replace(",", "").split()
    assert check(small_model, "--quantization", "int8")[1]["weights"].endswith(" MiB as int8")


def test_check_says_why_a_model_does_not_load(check, small_model, tmp_path):
    folder = tmp_path / "bad"
    shutil.copytree(small_model, folder)
    (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "utf-8")
    code, facts = check(folder)
    assert (code, facts["loads"]) == (3, "no")
    assert "model.safetensors: a Git LFS pointer" in facts["reason"]
    code, facts = check(tmp_path / "nothing")
    assert (code, facts["loads"]) == (3, "no") and "no such model" in facts["reason"]


def test_threads_follow_the_affinity(check, small_model):
    some = min(os.sched_getaffinity(0))
    assert check(small_model, cpus={some})[1]["device"] == "cpu, 1 CPU threads"


def test_given_kv_memory_that_does_not_fit_is_refused(check, small_model):
    code, facts = check(small_model, "--kv-memory-mb", 32 << 20)  # 32 TiB.
    assert (code, facts["loads"]) == (3, "no")
    assert f"KV memory of {32 << 20} MiB do not fit" in facts["reason"]


def test_equal_shapes_with_other_weights_have_other_digests(start_server, cli, small_model,
                                                            tmp_path):
    other = tmp_path / "other"
    shutil.copytree(small_model, other)
    with open(other / "model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    server = start_server(models={"one": small_model, "other": other})
    listed = json.loads(cli("models", "--json", server=server).stdout)["models"]
    assert listed[0]["digest"] == listed[1]["digest"]
    assert listed[0]["weights_digest"] != listed[1]["weights_digest"]
    assert all(len(model["weights_digest"]) == 64 for model in listed)
