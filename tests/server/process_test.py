"""structattn-server as a process: its one line, its exit codes, its log, how it comes and goes.

Collected by pytest (tests/run.sh); fixtures in tests/conftest.py. Requests go through the command
line or grpcio, never through the server's own code.
"""

import json
import shutil
import signal
import struct
import subprocess

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import conftest
import serving

QUESTION = ("--question", "What is red?")


@pytest.fixture
def run_server(bin_dir):
    """run_server(*flags) runs a server that must end by itself; text out."""
    def run(*flags):
        return subprocess.run([bin_dir / "structattn-server", *map(str, flags)],
                              capture_output=True, text=True, encoding="utf-8", check=False,
                              timeout=serving.PATIENCE_S)

    return run


# -------------------------------------------------------------------------------- start


def test_stdout_has_one_line(start_server):
    server = start_server()
    host, port = server.address.rsplit(":", 1)
    assert host == "127.0.0.1" and int(port) > 0
    assert server.stop() == 0
    assert server.process.stdout.read() == b""


def test_a_taken_port_is_said_aloud(run_server, start_server, cli, small_model):
    first = start_server()
    done = run_server("--listen", first.address, "--model", f"small={small_model}")
    assert (done.returncode, done.stdout) == (4, "")
    last = json.loads(done.stderr.splitlines()[-1])
    assert "the port is taken" in last["error"] and first.address in last["error"]
    assert cli("models", server=first).returncode == 0


@pytest.mark.parametrize("flags, words", [
    ((), "--model"), (("--model", "nameless"), "NAME=PATH"), (("--model", "a b=/tmp"), "a b"),
    (("--model", "m=/tmp", "--model", "m=/var"), "twice"), (("--model", "m="), "NAME=PATH"),
    (("--model", "m=/tmp", "--listen", "here"), "--listen"),
    (("--model", "m=/tmp", "--listen", "127.0.0.1:70000"), "0..65535"),
    (("--model", "m=/tmp", "--dtype", "int8"), "--dtype"),
    (("--model", "m=/tmp", "--weights", "expanded"), "--quantization none"),
    (("--model", "m=/tmp", "--device", "tpu"), "--device"),
    (("--model", "m=/tmp", "--threads", "-1"), "--threads"),
    (("--model", "m=/tmp", "--max-queued", "0"), "--max-queued"),
    (("--model", "m=/tmp", "--fast"), "--fast"), (("--model-root", "/nowhere"), "/nowhere"),
])
def test_bad_flags_are_usage_errors(run_server, flags, words):
    done = run_server(*flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr and done.stderr.count("\n") == 1


def test_help_and_version_go_to_stdout(run_server):
    for flag in ("--help", "--version"):
        done = run_server(flag)
        assert (done.returncode, done.stderr) == (0, "") and done.stdout


# Each makes a good model folder bad; then words that the refusal must have.


def truncate(folder):
    path = folder / "model.safetensors"
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 1000)
    return "model.safetensors", "model."  # The file, and a tensor that reaches past its end.


def lie_about_the_header(folder):
    with open(folder / "model.safetensors", "r+b") as file:
        file.write(struct.pack("<Q", 1 << 60))
    return "model.safetensors", "header"


def rename_a_tensor(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b"layers.2.mlp.up_proj", b"layers.2.mlp.up_proq", 1))
    return "model.layers.2.mlp.up_proj.weight",


def change_config(**changes):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")
        return "config.json", *changes

    return change


def resize_hidden(folder):
    change_config(intermediate_size=511)(folder)
    return "mlp.", "511"


def climb_out(folder):
    path = folder / "model.safetensors"
    path.rename(folder.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    return "model.safetensors.index.json", "../outside.safetensors"


def lose(name):
    def remove(folder):
        (folder / name).unlink()
        return name,

    return remove


def write_rubbish(folder):
    (folder / "tokenizer.json").write_text('{"model": ', "utf-8")
    return "tokenizer.json",


BREAKERS = {"truncated": truncate, "header past the end": lie_about_the_header,
            "tensor missing": rename_a_tensor, "wrong shape": resize_hidden,
            "unknown architecture": change_config(architectures=["MambaForCausalLM"]),
            "unknown activation": change_config(hidden_act="swiglu"),
            "NaN in the config": change_config(rms_norm_eps=float("nan")),
            "heads do not divide": change_config(num_key_value_heads=2),
            "shard outside": climb_out, "no tokenizer": lose("tokenizer.json"),
            "no config": lose("config.json"), "no weights": lose("model.safetensors"),
            "tokenizer is no JSON": write_rubbish}


@pytest.mark.parametrize("name", BREAKERS)
def test_a_refused_model_refuses_the_start(run_server, small_model, tmp_path, name):
    folder = tmp_path / "bad"
    shutil.copytree(small_model, folder)
    words = BREAKERS[name](folder)
    done = run_server("--listen", "127.0.0.1:0", "--model", f"good={small_model}", "--model",
                      f"bad={folder}")
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    refused, = [line for line in map(json.loads, done.stderr.splitlines())
                if line["event"] == "model_refused"]
    assert refused["model"] == "bad"
    print(refused["error"])
    for word in words:
        assert word.rstrip("s") in refused["error"], (word, refused["error"])


# -------------------------------------------------------------------------------- serve


def test_health_tells_of_server_and_models(start_server):
    server = start_server()
    with grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "structattn.v1.InferenceService", "model/small"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING, name
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="model/other"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_services(server):
    with grpc.insecure_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        answer, = stub.ServerReflectionInfo(iter([ask]))
        names = {service.name for service in answer.list_services_response.service}
        assert names >= {"structattn.v1.InferenceService", "structattn.v1.ModelService",
                         "grpc.health.v1.Health"}
        ask = reflection_pb2.ServerReflectionRequest(
            file_containing_symbol="structattn.v1.InferenceService")
        answer, = stub.ServerReflectionInfo(iter([ask]))
        assert answer.file_descriptor_response.file_descriptor_proto


def test_the_log_is_json_and_holds_no_text(cli, start_server):
    server = start_server("--log-level", "debug")
    secret = "Kumquat marmalade 4711"
    prompt = {"id": "r7", "segments": [{"type": "question", "text": secret, "paraphrase_index": 0}]}
    done = cli("generate", "--prompt", "-", "--max-tokens", 30, "--ignore-eos", "--json",
               stdin=json.dumps(prompt), server=server)
    answer = json.loads(done.stdout)
    cli("inspect", "--prompt", "-", stdin=json.dumps(prompt), server=server)
    prompt["segments"][0]["paraphrase_index"] = 63
    cli("generate", "--prompt", "-", "--stop", secret, stdin=json.dumps(prompt), server=server)
    assert server.stop() == 0
    log = server.log_text()
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert {"start", "model_loaded", "serving", "request", "drain", "stop"} <= set(events)
    ok, inspected, refused = server.log_events("request")
    assert (ok["request_id"], ok["code"], ok["generated_tokens"]) == ("r7", "OK", 30)
    assert (inspected["method"], refused["code"]) == ("Inspect", "INVALID_ARGUMENT")
    for word in secret.split():
        assert word not in log
    words = [word for word in answer["text"].split() if word.isalpha() and len(word) > 5]
    assert not [word for word in words if word in log.replace("structattn", "")], words


# -------------------------------------------------------------------------------- stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_it_stops_with_0(start_server, number):
    server = start_server()
    server.process.send_signal(number)
    assert server.process.wait(timeout=serving.PATIENCE_S) == 0
    assert server.log_events("stop")[-1]["all_requests_done"] is True


def start_streams(bin_dir, server, flags):
    """Commands whose answers have begun."""
    command = [bin_dir / "structattn", "generate", *QUESTION, "--server", server.address,
               "--ignore-eos", *flags]
    # Unbuffered: communicate() would not see what read() had taken ahead.
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  bufsize=0) for _ in range(3)]
    return [(process, process.stdout.read(1)) for process in processes]


def test_running_streams_finish_after_sigterm(bin_dir, cli, start_server):
    server = start_server("--drain-timeout-seconds", serving.PATIENCE_S)
    ask = ("--max-tokens", "1500")
    whole = cli("generate", *QUESTION, "--ignore-eos", *ask, server=server).stdout
    streams = start_streams(bin_dir, server, ask)
    server.process.terminate()
    for process, first in streams:
        rest, errors = process.communicate(timeout=serving.PATIENCE_S)
        assert process.returncode == 0, errors
        assert (first + rest).decode() == whole
    assert server.process.wait(timeout=serving.PATIENCE_S) == 0


def test_streams_that_outlast_the_drain_are_cancelled(bin_dir, start_server):
    server = start_server("--drain-timeout-seconds", "1")
    streams = start_streams(bin_dir, server, ("--json", "--max-tokens", "1"))
    endless = start_streams(bin_dir, server, ("--max-tokens", str(conftest.CONTEXT_LENGTH)))
    assert server.stop() == 0
    for process, _ in streams:
        process.communicate(timeout=serving.PATIENCE_S)
        assert process.returncode == 0
    for process, _ in endless:
        process.communicate(timeout=serving.PATIENCE_S)
        assert process.returncode == 8  # Cut short by the server, not by what was asked for.
    assert server.log_events("stop")[-1]["all_requests_done"] is False
    reasons = [event["finish_reason"] for event in server.log_events("request")]
    assert reasons[-3:] == ["cancelled"] * 3


# -------------------------------------------------------------------------------- memory


def private_bytes(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return 1024 * sum(int(line.split()[1]) for line in file if line.startswith("Private_"))


@pytest.mark.models
@pytest.mark.slow
def test_memory_at_rest(bin_dir, cli, models_dir, tmp_path):
    """Weights in the chosen type, their packed copies, KV and LibTorch's own."""
    server = serving.Server(bin_dir, {"smollm2": models_dir / "smollm2-hf"}, tmp_path / "log",
                            ["--dtype", "bfloat16"])
    try:
        at_rest = private_bytes(server.process.pid)
        model, = json.loads(cli("models", "--json", server=server).stdout)["models"]
        weights = 2 * model["parameters"]
        loaded, = server.log_events("model_loaded")
        print(f"{at_rest / 1e6:.0f} MB private for {weights / 1e6:.0f} MB of weights; loaded in "
              f"{loaded['load_ms']:.0f} ms")
        assert at_rest <= 1.3 * weights + 450e6
        assert server.stop() == 0
    finally:
        server.kill()
