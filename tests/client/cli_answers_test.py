"""`structattn score`, and branches and samples of `structattn generate`, as seen from outside.

Collected by pytest (tests/run.sh); fixtures in tests/conftest.py. Whether the scores are right is
judged by tests/golden/score_parity_test.py, not here.
"""

import json

import cases

PROMPT = {"id": "x", "segments": [{"type": "question", "text": "What is red?", "paraphrase_index": 0},
                                  {"type": "question", "text": "Red is?", "paraphrase_index": 1},
                                  {"type": "answer_cue", "text": " It is"}]}


def generate(cli, server, tmp_path, *flags):
    path = tmp_path / "prompt.json"
    path.write_text(json.dumps(PROMPT), encoding="utf-8")
    return cli("generate", "--prompt", path, "--max-tokens", 5, "--ignore-eos", *flags,
               server=server)


def test_branches_are_what_they_are_alone(cli, server, tmp_path):
    together = json.loads(generate(cli, server, tmp_path, "--branches", "2,1", "--json").stdout)
    assert [part["group"] for part in together["continuations"]] == [2, 1]
    for part, group in zip(together["continuations"], (2, 1)):
        alone = json.loads(generate(cli, server, tmp_path, "--branches", group, "--json").stdout)
        assert (part["token_ids"], part["logprobs"]) == (alone["token_ids"], alone["logprobs"])
        assert part["finish_reason"] == "length"
    assert together["usage"]["generated_tokens"] == 10


def test_samples_are_shown_readably(cli, server, tmp_path):
    done = generate(cli, server, tmp_path, "--n", 2, "--temperature", 1, "--seed", 3)
    assert done.returncode == 0, done.stderr
    assert "[group 0, sample 0]\n" in done.stdout and "[group 0, sample 1]\n" in done.stdout


def test_score_answers_line_by_line(cli, server, tmp_path):
    given, answered = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [{**PROMPT, "continuations": [" red", " green and blue"]},
             {**PROMPT, "id": "bad", "continuations": [""]},
             {**PROMPT, "id": "ids", "continuations": [[5, 6], [7]]}]
    given.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    done = cli("score", given, "-o", answered, server=server)
    assert done.returncode == 9
    good, bad, ids = cases.read_jsonl(answered)
    assert [good["id"], bad["id"], ids["id"]] == ["x", "bad", "ids"]
    assert bad["error"]["field"] == "continuations[0]"
    assert [score["token_ids"] for score in ids["scores"]] == [[5, 6], [7]]
    for score in good["scores"] + ids["scores"]:
        assert len(score["token_logprobs"]) == len(score["token_ids"])
        assert abs(score["logprob"] - sum(score["token_logprobs"])) < 1e-4
        assert score["is_greedy"] == all(rank == 1 for rank in score["ranks"])
