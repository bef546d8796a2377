"""Every exit code of `structattn`, and what it says on stderr, from both ends of a call.

Collected by pytest (tests/run.sh); fixtures in tests/conftest.py. Codes that a healthy server never
sends come from a stand-in that speaks gRPC and refuses everything.
"""

import concurrent.futures
import json
import socket
import subprocess
import types

import grpc
import pytest

import conftest
from serving import wait_until

QUESTION = ("--question", "What is red?")


@pytest.fixture
def free_address():
    """An address on which nothing listens while the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield types.SimpleNamespace(address=f"127.0.0.1:{taken.getsockname()[1]}")


@pytest.fixture
def refusing():
    """refusing(code) is a server that ends every call with it; None: with OK and no answer."""
    servers = []

    def start(code):
        def refuse(request, context):
            if code is not None:
                context.abort(code, "as told")
            yield from ()

        class Everything(grpc.GenericRpcHandler):
            def service(self, details):
                return grpc.unary_stream_rpc_method_handler(refuse)

        server = grpc.server(concurrent.futures.ThreadPoolExecutor(2), handlers=[Everything()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return types.SimpleNamespace(address=f"127.0.0.1:{port}")

    yield start
    for server in servers:
        server.stop(None)


@pytest.fixture
def jsonl(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"segments": [{"type": "context", "text": "red"}]}\n' * 3, encoding="utf-8")
    return path


USAGE = {
    "no subcommand": (),
    "unknown subcommand": ("dance",),
    "unknown flag": ("generate", *QUESTION, "--loud"),
    "no prompt": ("generate",),
    "prompt and flags": ("generate", "--prompt", "-", *QUESTION),
    "missing file": ("generate", "--prompt", "/nowhere/prompt.json"),
    "a folder as file": ("generate", "--prompt", "/"),
    "number wanted": ("generate", *QUESTION, "--max-tokens", "many"),
    "number too large": ("generate", *QUESTION, "--max-tokens", "99999999999"),
    "unknown rule": ("generate", *QUESTION, "--rule", "mine"),
    "unknown positions": ("generate", *QUESTION, "--positions", "random"),
    "unknown tokenization": ("inspect", "--prompt", "-", "--tokenization", "none"),
    "bad bias": ("generate", *QUESTION, "--logit-bias", "7:1"),
    "batch without output": ("batch", "IN"),
    "batch without input": ("batch", "/nowhere/in.jsonl", "-o", "OUT"),
    "batch without room": ("batch", "IN", "-o", "/nowhere/out.jsonl"),
    "batch with concurrency 0": ("batch", "IN", "-o", "OUT", "--concurrency", "0"),
    "batch with unknown rule": ("batch", "IN", "-o", "OUT", "--rule", "mine"),
    "batch with bad bias": ("batch", "IN", "-o", "OUT", "--logit-bias", "x=1"),
    "inspect without prompt": ("inspect",),
    "inspect without output": ("inspect", "IN"),
    "inspect with unknown rule": ("inspect", "IN", "-o", "OUT", "--rule", "mine"),
}


@pytest.mark.parametrize("name", USAGE)
def test_2_usage_asks_no_server(cli, free_address, jsonl, tmp_path, name):
    places = {"IN": jsonl, "OUT": tmp_path / "out.jsonl"}
    arguments = [places.get(word, word) for word in USAGE[name]]
    done = cli(*arguments, server=free_address, stdin='{"segments": []}')
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stderr and not done.stdout
    assert not places["OUT"].exists()


def test_0_for_help_and_version(cli):
    for flags in (("--help",), ("generate", "--help"), ("--version",)):
        done = cli(*flags)
        assert done.returncode == 0 and done.stdout, flags


def every_command(jsonl, tmp_path):
    out = tmp_path / "out.jsonl"
    return {"generate": ("generate", *QUESTION), "models": ("models",),
            "inspect": ("inspect", "--prompt", jsonl.with_name("one.json")),
            "inspect JSONL": ("inspect", jsonl, "-o", out), "batch": ("batch", jsonl, "-o", out)}


@pytest.mark.parametrize("command", ["generate", "models", "inspect", "inspect JSONL", "batch"])
def test_3_nothing_listens(cli, free_address, jsonl, tmp_path, command):
    jsonl.with_name("one.json").write_text(jsonl.read_text("utf-8").splitlines()[0], "utf-8")
    done = cli(*every_command(jsonl, tmp_path)[command], server=free_address)
    assert done.returncode == 3, (done.stdout, done.stderr)
    assert "UNAVAILABLE" in done.stderr
    assert not done.stdout


def test_4_a_bad_request_names_field_and_segment(cli, server):
    prompt = {"id": "x", "segments": [
        {"type": "context", "text": "red"},
        {"type": "question", "text": "What is\nred? " + "long " * 40, "paraphrase_index": 63}]}
    done = cli("generate", "--prompt", "-", "--json", stdin=json.dumps(prompt), server=server)
    assert done.returncode == 4
    first, second = done.stderr.splitlines()
    assert "INVALID_ARGUMENT" in first and "segments[1].paraphrase_index" in first
    assert "0..62" in first
    assert "segments[1] is a question" in second and "What is red?" in second
    error = json.loads(done.stdout)
    assert error["id"] == "x"
    assert error["error"]["field"] == "segments[1].paraphrase_index"


def test_4_what_json_says_wrongly_never_reaches_the_server(cli, free_address):
    prompt = {"segments": [{"type": "question", "text": "red", "paraphrase": 0}]}
    for command in ("generate", "inspect"):
        done = cli(command, "--prompt", "-", stdin=json.dumps(prompt), server=free_address)
        assert done.returncode == 4
        assert "segments[0].paraphrase" in done.stderr and "unknown field" in done.stderr


@pytest.mark.parametrize("flags, field", [
    (("--model", "other"), "model"), (("--max-tokens", "0"), "stopping.max_tokens"),
    (("--temperature", "-1"), "sampling.temperature"),
    (("--temperature", "nan"), "sampling.temperature"),
    (("--top-p", "inf"), "sampling.top_p"),
    (("--logprobs", "21"), "output.top_logprobs"), (("--stop", ""), "stopping.stop_strings[0]"),
    (("--generated-group", "64"), "generated_group"), (("--timeout-ms", "-1"), "timeout_ms"),
    (("--logit-bias", "-1=0"), "sampling.logit_bias[-1]"),
])
def test_4_bad_flags_are_the_servers_to_judge(cli, server, flags, field):
    done = cli("generate", *QUESTION, "--json", *flags, server=server)
    assert done.returncode == 4, done.stderr
    assert field in done.stderr
    assert json.loads(done.stdout)["error"]["field"] == field


def test_6_the_queue_is_full(bin_dir, cli, start_server):
    server = start_server("--max-running", "1", "--max-queued", "1")
    endless = [bin_dir / "structattn", "generate", *QUESTION, "--server", server.address,
               "--max-tokens", str(conftest.CONTEXT_LENGTH - 100), "--ignore-eos"]
    running = [subprocess.Popen(endless, stdout=subprocess.PIPE)]
    try:
        assert running[0].stdout.read(1)
        # One of these has the place in the queue, the other is refused.
        running += [subprocess.Popen(endless, stdout=subprocess.DEVNULL) for _ in range(2)]
        wait_until(lambda: [process.poll() for process in running].count(6) == 1)
        done = cli("generate", *QUESTION, "--json", server=server)
        assert done.returncode == 6
        assert "RESOURCE_EXHAUSTED" in done.stderr
        assert json.loads(done.stdout)["error"]["code"] == "RESOURCE_EXHAUSTED"
    finally:
        for process in running:
            process.kill()
            process.wait()
        running[0].stdout.close()
    # The requests that ended have made room.
    wait_until(lambda: cli("generate", *QUESTION, "--max-tokens", 1, server=server).returncode == 0)


def test_7_the_time_is_over_and_what_was_written_is_kept(cli, server):
    ask = ("generate", *QUESTION, "--max-tokens", conftest.CONTEXT_LENGTH, "--ignore-eos",
           "--timeout-ms", "1500")
    done = cli(*ask, "--json", server=server)
    assert done.returncode == 7, done.stderr
    answer = json.loads(done.stdout)
    assert answer["finish_reason"] == "deadline"
    assert 0 < len(answer["token_ids"]) < conftest.CONTEXT_LENGTH // 2
    assert cli(*ask, server=server).returncode == 7


@pytest.mark.parametrize("code, exit_code", [
    (grpc.StatusCode.UNAUTHENTICATED, 5), (grpc.StatusCode.PERMISSION_DENIED, 5),
    (grpc.StatusCode.INTERNAL, 8), (grpc.StatusCode.UNIMPLEMENTED, 8),
    (grpc.StatusCode.UNKNOWN, 8), (grpc.StatusCode.DATA_LOSS, 8),
    (grpc.StatusCode.DEADLINE_EXCEEDED, 7), (grpc.StatusCode.UNAVAILABLE, 3),
])
def test_what_other_servers_may_say(cli, refusing, code, exit_code):
    server = refusing(code)
    for command in (("generate", *QUESTION), ("models",)):
        done = cli(*command, server=server)
        assert done.returncode == exit_code, command
        assert f"error: {code.name}: as told" in done.stderr


def test_8_a_stream_without_its_end_is_no_answer(cli, refusing):
    done = cli("generate", *QUESTION, "--json", server=refusing(None))
    assert done.returncode == 8
    assert "DATA_LOSS" in done.stderr


def test_9_every_line_of_a_batch_failed(cli, server, jsonl, tmp_path):
    for command in ("batch", "inspect"):
        done = cli(command, jsonl, "-o", tmp_path / "out.jsonl", "--model", "other", server=server)
        assert done.returncode == 9, done.stderr
        assert (tmp_path / "out.jsonl").read_text().count("NOT_FOUND") == 3
