"""The Python client as installed by pip, against a running server.

Collected by pytest (tests/run.sh); fixtures in tests/conftest.py. The command line is the second
opinion: both clients must get the same answers to the same prompts.
"""

import json
import os
import subprocess
import sys
import time

import pytest

import cases
import conftest
from breaking_proxy import BreakingProxy
from serving import PATIENCE_S, wait_until

SEGMENTS = [{"type": "instruction", "text": "Answer in one word.\n"},
            {"type": "question", "text": "What is red?\n", "paraphrase_index": 0},
            {"type": "question", "text": "Red is what?\n", "paraphrase_index": 1},
            {"type": "answer_cue", "text": "It is"}]
PROMPT = {"segments": SEGMENTS}


@pytest.fixture
def client(structattn, server):
    with structattn.Client(server.address) as client:
        yield client


def test_the_package_holds_what_it_needs_and_no_more(python_package):
    files = {str(path.relative_to(python_package)) for path in python_package.rglob("*.py")}
    stubs = {f"structattn/v1/{name}_pb2{kind}.py" for kind in ("", "_grpc")
             for name in ("inference_service", "model_service", "types")}
    assert files == stubs | {f"structattn/{name}.py" for name in (
        "__init__", "_version", "batch", "client", "prompt", "v1/__init__")}


def test_the_version_is_the_project_s(structattn, python_package, project_version):
    assert structattn.__version__ == project_version
    assert (python_package / f"structattn-{project_version}.dist-info").is_dir()


def test_the_builders_write_the_form_of_files(structattn):
    built = [structattn.instruction("Answer in one word.\n"),
             structattn.question("What is red?\n", 0), structattn.question("Red is what?\n", 1),
             structattn.answer_cue("It is")]
    assert built == SEGMENTS
    assert structattn.few_shot([1, 2]) == {"type": "few_shot", "token_ids": [1, 2]}
    assert structattn.context("a", group=3) == {"type": "context", "text": "a", "group": 3}
    assert structattn.separator("\n")["type"] == "separator"


def test_generate_answers_as_the_command_line_does(client, cli, server):
    answer = client.generate(PROMPT, max_tokens=9, ignore_eos=True, top_logprobs=2)
    done = cli("generate", "--prompt", "-", "--max-tokens", 9, "--ignore-eos", "--logprobs", 2,
               "--json", stdin=json.dumps(PROMPT), server=server)
    expected = json.loads(done.stdout)
    for field in ("text", "token_ids", "finish_reason", "prompt_token_ids", "group_ids",
                  "position_ids"):
        assert getattr(answer, field) == expected[field], field
    assert answer.logprobs == pytest.approx(expected["logprobs"], abs=1e-6)  # Decimal digits.
    assert [[token for token, _ in best] for best in answer.top_logprobs] == [
        [entry["token_id"] for entry in best] for best in expected["top_logprobs"]]
    assert answer.usage.generated_tokens == 9
    assert answer.timings.decode_ms > 0
    assert answer.provenance.model == "small"
    assert answer.provenance.model_digest == expected["provenance"]["model_digest"]


def test_the_cache_saves_what_is_equal_and_changes_nothing(client):
    context = {"type": "context", "text": "Red is a colour, and so is blue. " * 8}
    prompt = {"segments": [context] + SEGMENTS}

    def ask(**cache):
        answer = client.generate(prompt, max_tokens=6, ignore_eos=True, cache=cache)
        return answer, answer.usage.cached_tokens

    bypassed, cached_tokens = ask(bypass=True)
    assert cached_tokens == 0
    first, _ = ask(salt="python")  # Shared with no other request.
    again, cached_tokens = ask(salt="python")
    assert 32 < cached_tokens < len(again.prompt_token_ids)
    per_segment = again.usage.cached_tokens_per_segment
    assert len(per_segment) == 5 and per_segment[0] > 32
    assert sum(per_segment) <= cached_tokens  # A special token is in no segment.
    assert ask(bypass=True)[1] == 0
    assert ask(salt="other")[1] == 0
    for answer in (first, again):
        assert answer.token_ids == bypassed.token_ids
        assert answer.logprobs == bypassed.logprobs


def test_every_prompt_of_the_goldens_passes_through(client, cli, server, tmp_path):
    """Rules, tables, ids, groups: to_proto loses nothing that the command line keeps."""
    prompts = cases.cases_of(conftest.SMALL_MODEL)
    given, answered = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts), encoding="utf-8")
    assert cli("inspect", given, "-o", answered, server=server).returncode == 0
    for prompt, expected in zip(prompts, cases.read_jsonl(answered)):
        seen = client.inspect(prompt)
        got = [[token.id, token.segment, token.group, token.position] for token in seen.tokens]
        assert got == [[token["id"], token["segment"], token["group"], token["position"]]
                       for token in expected["tokens"]], prompt["id"]
        assert seen.visible == expected["visible"]
        assert seen.visible_pairs == expected["visible_pairs"]
        assert seen.causal_pairs == expected["causal_pairs"]


def test_inspect_gives_the_bytes_of_tokens(client):
    seen = client.inspect({"segments": [{"type": "context", "text": "na\u00efve \U0001f98a!"}]})
    assert b"".join(token.bytes for token in seen.tokens if token.segment >= 0).decode() == \
        "na\u00efve \U0001f98a!"


def test_a_prompt_may_want_no_special_tokens(structattn):
    for wanted in (True, False):
        prompt = structattn.to_proto({**PROMPT, "add_special_tokens": wanted})
        assert prompt.add_special_tokens is wanted
    assert not structattn.to_proto(PROMPT).HasField("add_special_tokens")


def test_models(client):
    model, = client.models()
    assert (model.name, model.architecture, model.dtype) == ("small", "llama", "float32")
    assert model.context_length == conftest.CONTEXT_LENGTH


def test_stream_yields_what_generate_returns(structattn, client):
    options = dict(max_tokens=60, ignore_eos=True, temperature=0.7, seed=5)
    whole = client.generate(PROMPT, **options)
    into = structattn.Generation()
    chunks = list(client.stream(PROMPT, into=into, **options))
    assert len(chunks) > 1
    assert "".join(chunk.text for chunk in chunks) == whole.text == into.text
    assert sum((chunk.token_ids for chunk in chunks), []) == whole.token_ids
    assert into.finish_reason == "length"
    assert into.provenance.seed == 5


def test_leaving_the_loop_cancels_on_the_server(client, server):
    before = len(server.log_events("request"))
    for chunk in client.stream(PROMPT, max_tokens=conftest.CONTEXT_LENGTH, ignore_eos=True):
        if chunk.token_ids:
            break
    # The line of the request before may also come late; its code is another.
    wait_until(lambda: "CANCELLED" in [event["code"] for event in server.log_events("request")[before:]])


@pytest.mark.parametrize("order", ["input", "as_finished"])
def test_generate_batch_answers_as_generate_does(client, order):
    prompts = [{**PROMPT, "id": "same" if number % 2 else None} for number in range(40)]
    prompts[7] = {**PROMPT, "colour": 1}
    prompts[9] = {"segments": [{"type": "context", "text": "x" * (17 << 20)}]}
    prompts[11] = {"id": 11, "segments": [{"type": "question", "text": "a",
                                           "paraphrase_index": 63}]}
    options = dict(max_tokens=9, ignore_eos=True, temperature=0.7, seed=5)
    expected = client.generate(PROMPT, **options)
    results = list(client.generate_batch(iter(prompts), order=order, max_in_flight=4, **options))
    if order == "input":
        assert [result.index for result in results] == list(range(40))
    results.sort(key=lambda result: result.index)
    assert [result.id for result in results] == [prompt.get("id") for prompt in prompts]
    for result in results:
        if result.index in (7, 9, 11):
            assert result.generation is None
            assert result.error.code == ("RESOURCE_EXHAUSTED" if result.index == 9 else
                                         "INVALID_ARGUMENT")
            continue
        assert result.error is None
        for field in ("text", "token_ids", "logprobs", "finish_reason", "prompt_token_ids"):
            assert getattr(result.generation, field) == getattr(expected, field), field
    assert "colour" in results[7].error.message
    assert results[11].error.field == "segments[0].paraphrase_index"
    assert results[11].error.reason == "PARAPHRASE_INDEX_OUT_OF_RANGE"
    assert not list(client.generate_batch([]))


def test_generate_batch_takes_prompts_no_faster_than_results_are_taken(client):
    pulled = []

    def endless():
        while True:
            pulled.append(len(pulled))
            yield {"segments": [{"type": "context", "text": "red " * 2000}]}

    results = client.generate_batch(endless(), max_in_flight=2, max_tokens=1)
    for _ in range(3):
        assert next(results).generation

    def nothing_more_is_pulled():
        before = len(pulled)
        time.sleep(1)
        return len(pulled) == before

    wait_until(nothing_more_is_pulled)  # What the connection itself holds is taken, and no more.
    assert next(results).generation
    results.close()


def test_generate_batch_goes_on_when_the_connection_breaks(structattn, client, server):
    options = dict(max_tokens=40, ignore_eos=True)
    expected = client.generate(PROMPT, **options).token_ids
    with BreakingProxy(server.address) as proxy, structattn.Client(proxy.address) as broken:
        seen = []
        for result in broken.generate_batch([PROMPT] * 200, max_in_flight=4, **options):
            assert result.generation.token_ids == expected
            seen.append(result.index)
            if len(seen) in (20, 90):
                proxy.break_all()
        assert seen == list(range(200))
        assert proxy.connections == 3


def test_generate_batch_raises_what_stops_it(structattn, client, start_server):
    def failing():
        yield PROMPT
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(client.generate_batch(failing(), max_tokens=2))
    with pytest.raises(TypeError, match="request_id"):
        next(client.generate_batch([PROMPT], request_id="x"))
    with pytest.raises(ValueError, match="BATCH_ORDER_RANDOM"):
        next(client.generate_batch([PROMPT], order="random"))
    with pytest.raises(structattn.StructattnError) as caught:
        next(client.generate_batch([PROMPT], max_in_flight=1025))
    assert (caught.value.code, caught.value.field) == ("INVALID_ARGUMENT", "options.max_in_flight")
    gone = start_server()
    gone.kill()
    with structattn.Client(gone.address) as unreachable, \
            pytest.raises(structattn.StructattnError) as caught:
        list(unreachable.generate_batch([PROMPT]))
    assert caught.value.code == "UNAVAILABLE"


@pytest.mark.parametrize("change, options, error", [
    ({"segments": []}, {},
     ("INVALID_ARGUMENT", "segments", "NO_SEGMENTS")),
    ({"segments": [{"type": "question", "text": "a", "paraphrase_index": 63}]}, {},
     ("INVALID_ARGUMENT", "segments[0].paraphrase_index", "PARAPHRASE_INDEX_OUT_OF_RANGE")),
    ({"segments": [{"type": "context", "text": "a", "group": 1}]}, {},
     ("INVALID_ARGUMENT", "segments[0].group", "GROUP_WITHOUT_TABLE")),
    ({"rule": {"visible": [[0, 1, 2], [0], [2]]}}, {},
     ("INVALID_ARGUMENT", "rule.table.visible[1]", "GROUP_NOT_SELF_VISIBLE")),
    ({}, {"temperature": float("nan")},
     ("INVALID_ARGUMENT", "sampling.temperature", "VALUE_OUT_OF_RANGE")),
    ({}, {"stop_strings": ["x"] * 10000},
     ("INVALID_ARGUMENT", "stopping.stop_strings", "TOO_MANY_ENTRIES")),
    ({}, {"model": "other"}, ("NOT_FOUND", "model", "MODEL_NOT_FOUND")),
    ({}, {"max_tokens": 0},
     ("INVALID_ARGUMENT", "stopping.max_tokens", "VALUE_OUT_OF_RANGE")),
])
def test_errors_carry_code_field_and_reason(structattn, client, change, options, error):
    with pytest.raises(structattn.StructattnError) as caught:
        client.generate({**PROMPT, **change}, **options)
    assert (caught.value.code, caught.value.field, caught.value.reason) == error
    code, field, _ = error
    assert field in caught.value.message and code in str(caught.value)


@pytest.mark.parametrize("change, words", [
    ({"colour": 1}, "colour"), ({"rule": "mine"}, "anchored"), ({"rule": {"seen": []}}, "visible"),
    ({"segments": [{"type": "poem", "text": "a"}]}, r"segments\[0\]\.type"),
    ({"segments": [{"type": "context"}]}, r"segments\[0\]"),
    ({"segments": [{"type": "context", "text": "a", "txt": "b"}]}, r"segments\[0\]\.txt"),
])
def test_wrong_words_are_refused_before_the_call(structattn, change, words):
    with pytest.raises(ValueError, match=words):
        structattn.to_proto({**PROMPT, **change})


def test_unknown_options_are_refused(client):
    with pytest.raises(TypeError, match="max_token"):
        client.generate(PROMPT, max_token=3)


def test_nothing_listens(structattn, start_server):
    gone = start_server()
    gone.kill()
    with structattn.Client(gone.address) as client:
        for call in (client.models, lambda: client.inspect(PROMPT),
                     lambda: client.generate(PROMPT)):
            with pytest.raises(structattn.StructattnError) as caught:
                call()
            assert caught.value.code == "UNAVAILABLE"


def test_the_example_runs(root, python_package, server):
    example = root / "client/python/examples/paraphrases.py"
    environment = {**os.environ, "PYTHONPATH": str(python_package)}
    done = subprocess.run([sys.executable, example, server.address], capture_output=True,
                          env=environment, check=False, timeout=PATIENCE_S)
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0, done.stderr.decode()
    assert [line.split(":")[0] for line in lines[:1] + lines[-1:]] == ["anchored", "causal"]
    wrong = subprocess.run([sys.executable, example, "127.0.0.1:1"], capture_output=True, text=True,
                           env=environment, check=False, timeout=PATIENCE_S)
    assert wrong.returncode == 1 and "UNAVAILABLE" in wrong.stderr
    assert "Traceback" not in wrong.stderr
