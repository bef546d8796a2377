"""`structattn batch`: order, concurrency, errors by line, resuming, as seen from outside.

Collected by pytest (tests/run.sh); fixtures in tests/conftest.py. Whether the answers are right is
judged by tests/golden/parity_test.py, not here.
"""

import json
import subprocess

import pytest

import cases
import conftest
from breaking_proxy import BreakingProxy
from serving import PATIENCE_S, wait_until

GOOD = {"segments": [{"type": "question", "text": "What is red?", "paraphrase_index": 0},
                     {"type": "answer_cue", "text": " It is"}]}


def question(index):
    return {"segments": [{"type": "question", "text": "What is red?", "paraphrase_index": index}]}


@pytest.fixture
def batch(cli, server, tmp_path):
    """batch(lines, *flags) -> (process, result objects); lines are objects or ready text."""
    def run(lines, *flags):
        given = write_lines(tmp_path / "in.jsonl", lines)
        answered = tmp_path / "out.jsonl"
        done = cli("batch", given, "-o", answered, *flags, server=server)
        return done, cases.read_jsonl(answered) if answered.exists() else []

    return run


def write_lines(path, lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n"
                            for line in lines), encoding="utf-8")
    return path


def answers_of(results):
    """What must not depend on how a batch was run; logprobs to the last bit."""
    return [{field: result[field] for field in ("id", "text", "token_ids", "logprobs",
                                                "finish_reason", "prompt_token_ids")}
            for result in results]


@pytest.mark.parametrize("sampling", [(), ("--temperature", 0.9, "--seed", 11)])
def test_concurrency_changes_neither_order_nor_answers(batch, sampling):
    prompts = cases.cases_of(conftest.SMALL_MODEL)
    flags = ("--max-tokens", 12, "--ignore-eos", *sampling)
    done, alone = batch(prompts, "--concurrency", 1, *flags)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done, together = batch(prompts, "--concurrency", 8, *flags)
    assert done.returncode == 0, done.stderr
    assert [result["id"] for result in together] == [prompt["id"] for prompt in prompts]
    assert answers_of(together) == answers_of(alone)


def test_answers_of_the_dataset_pass_through_and_ids_keep_their_type(batch):
    lines = [{**GOOD, "id": "text", "answers": ["a", {"b": [1, None]}]}, {**GOOD, "id": 17},
             {**GOOD, "continuations": ["for score"]}]
    done, results = batch(lines, "--max-tokens", 2)
    assert done.returncode == 0, done.stderr
    assert [result["id"] for result in results] == ["text", 17, None]
    assert results[0]["answers"] == ["a", {"b": [1, None]}]
    assert "answers" not in results[1]


BAD_LINES = {  # name: (line, code, field)
    "no JSON": ("{\"id\": \"x\", ", "INVALID_ARGUMENT", ""),
    "no object": ("[1, 2]", "INVALID_ARGUMENT", ""),
    "nested": ("[" * 3000 + "]" * 3000, "INVALID_ARGUMENT", ""),
    "unknown field": ({**GOOD, "id": "x", "colour": 1}, "INVALID_ARGUMENT", "colour"),
    "unknown segment field": ({"id": "x", "segments": [{"type": "context", "text": "a"},
                                                       {"type": "context", "txt": "b"}]},
                              "INVALID_ARGUMENT", "segments[1].txt"),
    "no segments": ({"id": "x"}, "INVALID_ARGUMENT", "segments"),
    "empty segments": ({"id": "x", "segments": []}, "INVALID_ARGUMENT", "segments"),
    "unknown type": ({"id": "x", "segments": [{"type": "poem", "text": "a"}]},
                     "INVALID_ARGUMENT", "segments[0].type"),
    "paraphrase 63": ({"id": "x", **question(63)}, "INVALID_ARGUMENT",
                      "segments[0].paraphrase_index"),
    "paraphrase -1": ({"id": "x", **question(-1)}, "INVALID_ARGUMENT",
                      "segments[0].paraphrase_index"),
    "paraphrase 2^40": ({"id": "x", **question(1 << 40)}, "INVALID_ARGUMENT",
                        "segments[0].paraphrase_index"),
    "paraphrase 0.5": ({"id": "x", **question(0.5)}, "INVALID_ARGUMENT",
                       "segments[0].paraphrase_index"),
    "table too small": ({"id": "x", **question(3), "rule": {"visible": [[0]]}},
                        "INVALID_ARGUMENT", "rule.table.visible"),
    "unknown rule": ({"id": "x", **GOOD, "rule": "mine"}, "INVALID_ARGUMENT", "rule"),
}


def test_a_bad_line_fails_alone_and_names_its_field(batch):
    lines = [line for bad, _, _ in BAD_LINES.values() for line in ({**GOOD, "id": "good"}, bad)]
    done, results = batch([*lines, {**GOOD, "id": "good"}], "--max-tokens", 2)
    assert done.returncode == 9, done.stderr
    assert len(results) == len(lines) + 1
    for result in results[::2]:
        assert result["id"] == "good" and result["token_ids"], result
    for (name, (line, code, field)), result in zip(BAD_LINES.items(), results[1::2]):
        assert set(result) == {"id", "error"}, name
        assert result["id"] == (line["id"] if isinstance(line, dict) else None), name
        assert (result["error"]["code"], result["error"]["field"]) == (code, field), name
        assert field in result["error"]["message"], name
        assert len(result["error"]["message"]) > len(field), name


def test_blank_lines_and_an_empty_file(batch):
    done, results = batch(["", {**GOOD, "id": 1}, "   ", {**GOOD, "id": 2}, ""], "--max-tokens", 2)
    assert (done.returncode, [result["id"] for result in results]) == (0, [1, 2])
    done, results = batch([], "--max-tokens", 2)
    assert (done.returncode, results) == (0, [])


def test_resume_after_a_kill_keeps_what_was_done(bin_dir, batch, server, tmp_path):
    prompts = [{**GOOD, "id": f"p{number}"} for number in range(16)]
    flags = ["--max-tokens", "400", "--ignore-eos", "--temperature", "0.8", "--seed", "3"]
    given = write_lines(tmp_path / "killed.jsonl", prompts)
    answered = tmp_path / "killed.out.jsonl"
    command = [bin_dir / "structattn", "batch", given, "-o", answered, "--server", server.address,
               "--concurrency", "2", *flags]
    with subprocess.Popen(command) as process:
        wait_until(lambda: answered.exists() and answered.read_bytes().count(b"\n") >= 3)
        process.kill()
    with open(answered, "ab") as torn:
        torn.write(b'{"id": "p')
    kept = answered.read_text(encoding="utf-8").splitlines()[:-1]
    assert 3 <= len(kept) < len(prompts), "the batch was over before it could be killed"

    resumed = subprocess.run([*command, "--resume"], check=False, timeout=PATIENCE_S)
    assert resumed.returncode == 0
    lines = answered.read_text(encoding="utf-8").splitlines()
    assert lines[:len(kept)] == kept  # To the byte, timings too: not asked again.
    results = [json.loads(line) for line in lines]
    done, whole = batch(prompts, *flags)
    assert done.returncode == 0
    assert answers_of(results) == answers_of(whole)
    assert not list(tmp_path.glob("killed.out.jsonl.*"))


def test_resume_asks_failed_lines_again(batch):
    lines = [{**GOOD, "id": 1}, {**GOOD, "id": 2, "colour": 1}, {**GOOD, "id": 3}]
    done, first = batch(lines, "--max-tokens", 2)
    assert done.returncode == 9
    lines[1] = {**GOOD, "id": 2}
    done, second = batch(lines, "--max-tokens", 2, "--resume")
    assert done.returncode == 0
    assert [second[0], second[2]] == [first[0], first[2]]
    assert second[1]["token_ids"]


def test_a_full_queue_is_waited_for(cli, start_server, tmp_path):
    server = start_server("--max-running", "1", "--max-queued", "1")
    given = write_lines(tmp_path / "in.jsonl", [{**GOOD, "id": number} for number in range(8)])
    done = cli("batch", given, "-o", tmp_path / "out.jsonl", "--concurrency", 8, "--max-tokens",
               300, "--ignore-eos", server=server)
    assert done.returncode == 0, done.stderr
    results = cases.read_jsonl(tmp_path / "out.jsonl")
    assert [len(result.get("token_ids", ())) for result in results] == [300] * 8


def test_a_connection_that_breaks_is_made_again(bin_dir, batch, server, tmp_path):
    prompts = [{**GOOD, "id": number} for number in range(24)]
    flags = ["--max-tokens", "300", "--ignore-eos", "--temperature", "0.8", "--seed", "3"]
    given, answered = write_lines(tmp_path / "broken.jsonl", prompts), tmp_path / "broken.out.jsonl"
    with BreakingProxy(server.address) as proxy:
        command = [bin_dir / "structattn", "batch", given, "-o", answered, "--server",
                   proxy.address, "--concurrency", "4", *flags]
        with subprocess.Popen(command) as process:
            for lines in (4, 12):
                wait_until(lambda: answered.exists() and answered.read_bytes().count(b"\n") >= lines)
                proxy.break_all()
            assert process.wait(timeout=PATIENCE_S) == 0
        assert proxy.connections == 3
    done, whole = batch(prompts, *flags)
    assert done.returncode == 0
    assert answers_of(cases.read_jsonl(answered)) == answers_of(whole)


def test_a_line_too_large_to_send_fails_alone(batch):
    large = {"id": "large", "segments": [{"type": "context", "text": "x" * (17 << 20)}]}
    done, results = batch([{**GOOD, "id": 1}, large, {**GOOD, "id": 2}], "--max-tokens", 2)
    assert done.returncode == 9, done.stderr
    assert [result["id"] for result in results] == [1, "large", 2]
    assert results[1]["error"]["code"] == "RESOURCE_EXHAUSTED"
    assert results[1]["error"]["field"] == "segments"
    assert results[0]["token_ids"] and results[2]["token_ids"]


def test_a_server_that_goes_away_ends_the_batch_and_resume_goes_on(bin_dir, cli, start_server,
                                                                   server, tmp_path):
    mortal = start_server()
    given = write_lines(tmp_path / "in.jsonl", [{**GOOD, "id": number} for number in range(20)])
    answered = tmp_path / "out.jsonl"
    command = ["batch", given, "-o", answered, "--concurrency", "2", "--max-tokens", "600",
               "--ignore-eos"]
    running = [bin_dir / "structattn", *command, "--server", mortal.address]
    with subprocess.Popen(running, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: answered.exists() and answered.read_bytes().count(b"\n") >= 2)
        mortal.kill()
        assert process.wait(timeout=PATIENCE_S) == 3
        assert "UNAVAILABLE" in process.stderr.read()
    done = cli(*command, "--resume", server=server)
    assert done.returncode == 0, done.stderr
    assert [result["id"] for result in cases.read_jsonl(answered)] == list(range(20))
