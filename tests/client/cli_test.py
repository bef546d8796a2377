"""`structattn generate | inspect | models` against a running server, seen as their users see them.

Collected by pytest (tests/run.sh); fixtures in tests/conftest.py; cli_batch_test.py has `batch`.
Never looks into the client's code; what is right is judged by tests/golden/reference.py.
"""

import base64
import json
import signal
import subprocess

import pytest

import cases
import conftest
import make_models
import reference
from serving import PATIENCE_S, wait_until

RESULT_FIELDS = {"id", "text", "token_ids", "logprobs", "finish_reason", "prompt_token_ids",
                 "group_ids", "position_ids", "usage", "timings_ms", "provenance"}
PROMPT = {"id": "p1", "answers": ["red", 5],
          "segments": [{"type": "instruction", "text": "Answer in one word.\n"},
                       {"type": "question", "text": "What is red?\n", "paraphrase_index": 0},
                       {"type": "question", "text": "Red is what?\n", "paraphrase_idx": 1},
                       {"type": "answer_cue", "text": "It is"}]}
AD_HOC = ("--instruction", "Answer in one word.", "--question", "What is red?",
          "--question", "Red is what?", "--answer-cue", "It is")


@pytest.fixture
def prompt_file(tmp_path):
    """prompt_file(object) writes it as JSON and returns the path."""
    def write(prompt):
        path = tmp_path / "prompt.json"
        path.write_text(json.dumps(prompt), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def encoder():
    name = make_models.shape_of(conftest.SMALL_MODEL)["tokenizer"]
    return reference.Encoder(make_models.TOKENIZERS / name / "tokenizer.json")


def only_line(done):
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def endless(bin_dir, server):
    """A command that would run for minutes: what a test interrupts."""
    return [bin_dir / "structattn", "generate", *AD_HOC, "--server", server.address,
            "--max-tokens", str(conftest.CONTEXT_LENGTH), "--ignore-eos"]


def codes_of(server):
    """How the requests so far ended, by the log."""
    return [event["code"] for event in server.log_events("request")]


# -------------------------------------------------------------------------------- generate


def test_generate_reads_a_file_standard_input_or_flags_alike(cli, server, prompt_file):
    tail = ("--max-tokens", 12, "--json")
    answers = [only_line(done) for done in (
        cli("generate", "--prompt", prompt_file(PROMPT), *tail, server=server),
        cli("generate", "--prompt", "-", *tail, stdin=json.dumps(PROMPT), server=server),
        cli("generate", *AD_HOC, *tail, server=server))]
    for answer in answers[1:]:
        for field in ("text", "token_ids", "logprobs", "prompt_token_ids", "group_ids"):
            assert answer[field] == answers[0][field], field
    assert [answer["id"] for answer in answers] == ["p1", "p1", None]
    assert answers[0]["answers"] == ["red", 5]


def test_json_has_every_field_always(cli, server, encoder):
    answer = only_line(cli("generate", *AD_HOC, "--max-tokens", 5, "--ignore-eos", "--json",
                           server=server))
    assert set(answer) == RESULT_FIELDS
    assert set(answer["usage"]) == {"prompt_tokens", "cached_tokens", "generated_tokens"}
    assert set(answer["timings_ms"]) == {"queue", "prefill", "decode"}
    assert set(answer["provenance"]) == {"model", "model_digest", "weights_digest",
                                         "structure_digest", "dtype", "weight_format", "device",
                                         "kernel", "seed", "version"}
    expected = reference.encode_prompt(PROMPT, encoder)
    assert answer["prompt_token_ids"] == expected.token_ids
    assert answer["group_ids"] == expected.groups
    assert answer["position_ids"] == expected.positions
    assert len(answer["token_ids"]) == len(answer["logprobs"]) == 5
    assert answer["usage"]["generated_tokens"] == 5
    assert answer["usage"]["prompt_tokens"] == len(expected.token_ids)
    assert answer["finish_reason"] == "length"
    assert answer["provenance"]["dtype"] == "float32"
    assert answer["provenance"]["weight_format"] == "float32"


def test_no_cache_and_cache_salt_keep_a_request_apart(cli, server):
    ask = ("generate", "--instruction", "Answer in one word, please. " * 8,
           "--question", "What is red?", "--answer-cue", "It is", "--max-tokens", 2, "--json")

    def cached(*flags):
        return only_line(cli(*ask, *flags, server=server))["usage"]["cached_tokens"]

    cached("--cache-salt", "cli")
    assert cached("--cache-salt", "cli") > 32
    assert cached("--cache-salt", "cli", "--no-cache") == 0
    assert cached("--cache-salt", "other") == 0


def test_logprobs_adds_the_best_per_token_and_nothing_else(cli, server):
    ask = ("generate", *AD_HOC, "--max-tokens", 4, "--ignore-eos", "--json")
    plain = only_line(cli(*ask, server=server))
    more = only_line(cli(*ask, "--logprobs", 3, server=server))
    assert set(more) == RESULT_FIELDS | {"top_logprobs"}
    assert more["token_ids"] == plain["token_ids"]
    for token, logprob, best in zip(more["token_ids"], more["logprobs"], more["top_logprobs"]):
        assert len(best) == 3
        assert best[0] == {"token_id": token, "logprob": logprob}  # Greedy takes the best.
        assert best == sorted(best, key=lambda entry: -entry["logprob"])


def test_text_without_json_is_the_text_of_json(cli, server):
    ask = ("generate", *AD_HOC, "--max-tokens", 40, "--ignore-eos")
    text = only_line(cli(*ask, "--json", server=server))["text"]
    done = cli(*ask, server=server)
    assert (done.returncode, done.stdout, done.stderr) == (0, text + "\n", "")


def test_sampling_flags_reach_the_server(cli, server):
    ask = ("generate", *AD_HOC, "--max-tokens", 24, "--ignore-eos", "--json")
    def tokens(*flags):
        return only_line(cli(*ask, *flags, server=server))["token_ids"]

    hot = tokens("--temperature", 1.5, "--seed", 7)
    assert hot == tokens("--temperature", 1.5, "--seed", 7)
    assert hot != tokens("--temperature", 1.5, "--seed", 8)
    greedy = tokens()
    assert greedy != hot
    assert greedy == tokens("--temperature", 1.5, "--top-k", 1)
    assert set(tokens("--logit-bias", "77=1000")) == {77}
    stopped = only_line(cli(*ask, "--stop-token-id", greedy[3], server=server))
    assert stopped["finish_reason"] == "stop_token"
    assert stopped["token_ids"] == greedy[:greedy.index(greedy[3]) + 1]


def test_structure_flags_are_defaults_that_a_prompt_overrides(cli, server, prompt_file):
    flags = ("--rule", "isolated", "--positions", "aligned", "--tokenization", "per_segment")
    def positions(prompt):
        return only_line(cli("generate", "--prompt", prompt_file(prompt), "--max-tokens", 1,
                             "--json", *flags, server=server))["position_ids"]

    aligned = positions(PROMPT)
    assert len(set(aligned)) < len(aligned)
    sequential = positions({**PROMPT, "positions": "sequential"})
    assert sequential == list(range(len(sequential)))


def test_special_tokens_are_parsed_and_left_out_where_the_flags_say_so(cli, server, encoder):
    bos, eos = make_models.BOS_AND_EOS[make_models.shape_of(conftest.SMALL_MODEL)["tokenizer"]]
    texts = (bos + "Answer.", f"Red{eos}")

    def ids(*flags):
        return only_line(cli("generate", "--instruction", texts[0], "--answer-cue", texts[1],
                             "--max-tokens", 1, "--json", *flags, server=server))["prompt_token_ids"]

    def expected(parse, add=True):
        segments = [{"type": "instruction", "text": texts[0] + "\n", "parse_special": parse},
                    {"type": "answer_cue", "text": texts[1], "parse_special": parse}]
        prompt = {"segments": segments, "add_special_tokens": add}
        return reference.encode_prompt(prompt, encoder).token_ids

    assert ids() == expected(False)
    assert ids("--parse-special") == expected(True)
    assert ids("--no-special-tokens") == expected(False, add=False)
    assert len({tuple(expected(*choice)) for choice in ((False,), (True,))}) == 2


def test_common_flags_stand_before_or_behind_the_subcommand(cli, server):
    common = ("--server", server.address, "--model", "small", "--json")
    ask = ("--question", "What is red?", "--max-tokens", 3)
    front = only_line(cli(*common, "generate", *ask))
    behind = only_line(cli("generate", *ask, *common))
    assert front["token_ids"] == behind["token_ids"]


def test_a_flag_wins_over_the_environment(cli, server, start_server):
    other = start_server()
    assert other.stop() == 0  # Its address answers no more.
    done = cli("models", "--server", server.address, server=other)
    assert done.returncode == 0, done.stderr


def test_text_is_streamed_while_it_is_written_and_ctrl_c_ends_it(bin_dir, cli, server):
    before = len(codes_of(server))
    with subprocess.Popen(endless(bin_dir, server), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout.read(200)
        assert process.poll() is None  # Far from done: those bytes were streamed.
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130
    # Other requests are answered, at once since nothing else is running.
    assert cli("generate", *AD_HOC, "--max-tokens", 3, server=server).returncode == 0
    wait_until(lambda: "CANCELLED" in codes_of(server)[before:])


def test_a_closed_pipe_ends_the_client_and_the_work(bin_dir, cli, server):
    before = len(codes_of(server))
    with subprocess.Popen(endless(bin_dir, server), stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as process:
        assert process.stdout.read(50)
        process.stdout.close()
        assert process.wait(timeout=PATIENCE_S) != 0
    assert cli("generate", *AD_HOC, "--max-tokens", 3, server=server).returncode == 0
    wait_until(lambda: "CANCELLED" in codes_of(server)[before:])


# -------------------------------------------------------------------------------- inspect, models


def check_inspection(seen, prompt, encoder):
    expected = reference.encode_prompt(prompt, encoder)
    columns = {name: [token[name] for token in seen["tokens"]]
               for name in ("id", "segment", "group", "position")}
    assert columns == {"id": expected.token_ids, "segment": expected.segments,
                       "group": expected.groups, "position": expected.positions}
    size = len(expected.token_ids)
    assert seen["visible_pairs"] == reference.visibility(expected.groups, expected.visible).sum()
    assert seen["causal_pairs"] == size * (size + 1) // 2
    if isinstance(prompt["rule"], dict):
        rows = expected.visible
    else:  # A preset has no end: the answer shows it for the groups there are.
        groups = range(max(expected.groups) + 1)
        rows = [expected.visible[group] & set(groups) for group in groups]
    assert [set(row) for row in seen["visible"]] == rows
    if all("text" in segment for segment in prompt["segments"]):
        spelled = b"".join(base64.b64decode(token["bytes"]) for token in seen["tokens"]
                           if token["segment"] >= 0)
        assert spelled.decode() == "".join(segment["text"] for segment in prompt["segments"])


def test_inspect_agrees_with_the_specification(cli, server, encoder, tmp_path, prompt_file):
    prompts = cases.cases_of(conftest.SMALL_MODEL)
    given, answered = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts), encoding="utf-8")
    done = cli("inspect", given, "-o", answered, server=server)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    results = cases.read_jsonl(answered)
    assert [result["id"] for result in results] == [prompt["id"] for prompt in prompts]
    for result, prompt in zip(results, prompts):
        check_inspection(result, prompt, encoder)
    one = only_line(cli("inspect", "--prompt", prompt_file(prompts[7]), "--json", server=server))
    assert one == results[7]


def test_inspect_draws_the_mask_for_people(cli, server, tmp_path, prompt_file):
    svg = tmp_path / "mask.svg"
    done = cli("inspect", "--prompt", prompt_file(PROMPT), "--svg", svg, server=server)
    assert done.returncode == 0, done.stderr
    assert "group 2 sees: 1 2" in done.stdout
    assert "causal pairs visible" in done.stdout
    assert "<svg" in svg.read_text(encoding="utf-8")


def test_models_lists_all_and_the_name_is_needed_among_several(cli, small_model, start_server):
    server = start_server(models={"b": small_model, "a": small_model})
    models = only_line(cli("models", "--json", server=server))["models"]
    assert [model["name"] for model in models] == ["a", "b"]
    assert models[0]["architecture"] == "llama"
    assert models[0]["context_length"] == conftest.CONTEXT_LENGTH
    table = cli("models", server=server).stdout
    assert [line.split()[0] for line in table.splitlines()] == ["NAME", "a", "b"]
    assert cli("generate", *AD_HOC, "--max-tokens", 2, "--model", "b",
               server=server).returncode == 0
    nameless = cli("generate", *AD_HOC, server=server)
    assert nameless.returncode == 4
    assert '"a", "b"' in nameless.stderr  # The names to choose from.
