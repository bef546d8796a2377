"""Scores over gRPC in float32 equal Hugging Face eager's: log-probabilities within 1e-3 per token,
is_greedy identical, with the cache and without, to the same bits.

Collected by pytest (tests/run.sh). The random models need nothing but the built programs; the real
ones need tests/models/fetch.sh.
"""

import json

import pytest

import cases
import make_models
import parity
import reference
import score_cases

TOLERANCE = 1e-3


def compare(results, golden):
    """(worst error, scores compared); asserts what the bar asks for."""
    worst = count = 0
    for result, wanted in zip(results, golden, strict=True):
        assert result["id"] == wanted["id"]
        for ours, theirs in zip(result["scores"], wanted["scores"], strict=True):
            label = f"{result['id']}: {ours} and {theirs}"
            assert ours["token_ids"] == theirs["token_ids"], label
            error = max(abs(a - b) for a, b in zip(ours["token_logprobs"], theirs["logprobs"],
                                                   strict=True))
            assert error <= TOLERANCE, label
            assert abs(ours["logprob"] - sum(ours["token_logprobs"])) < 1e-4, label
            if theirs["margin"] > TOLERANCE:
                assert ours["is_greedy"] == theirs["is_greedy"], label
            worst, count = max(worst, error), count + 1
    return worst, count


def check(bin_dir, address, name):
    lines = score_cases.cases_of(name)
    golden = cases.read_jsonl(score_cases.golden_path(name))
    cold = parity.run_score(bin_dir, address, name, lines, ["--no-cache"])
    worst, count = compare(cold, golden)
    print(f"{name}: {count} continuations of {len(lines)} prompts, worst error {worst:.1e}")
    for _ in range(2):  # The second time all prompts are in the cache.
        warm = parity.run_score(bin_dir, address, name, lines)
        assert [line["scores"] for line in warm] == [line["scores"] for line in cold]
    assert sum(line["usage"]["cached_tokens"] for line in warm) > 0


@pytest.fixture(scope="module")
def small_server(bin_dir, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("scores")
    models = parity.model_folders(make_models.MODELS, None, scratch)
    with parity.serving(bin_dir, models, scratch / "server.log") as address:
        yield address


@pytest.mark.parametrize("name", make_models.MODELS)
def test_random_model(bin_dir, small_server, name):
    check(bin_dir, small_server, name)


def append_eos(folder):
    """Puts EOS behind every text, as the tokenizer.json of Qwen3-Embedding does."""
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    eos = next(entry for entry in document["added_tokens"] if entry["content"] == "<|endoftext|>")
    special = {"SpecialToken": {"id": eos["content"], "type_id": 0}}
    template = {"type": "TemplateProcessing",
                "single": [{"Sequence": {"id": "A", "type_id": 0}}, special],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, special,
                         {"Sequence": {"id": "B", "type_id": 0}}, special],
                "special_tokens": {eos["content"]: {"id": eos["content"], "ids": [eos["id"]],
                                                    "tokens": [eos["content"]]}}}
    document["post_processor"] = {"type": "Sequence",
                                  "processors": [document["post_processor"], template]}
    path.write_text(json.dumps(document), encoding="utf-8")


def test_a_tokenizer_that_appends_eos_changes_no_score(bin_dir, tmp_path):
    name = "qwen3-gqa3-d128"
    folder = make_models.make_model(tmp_path, name)
    append_eos(folder)
    with parity.serving(bin_dir, {name: folder}, tmp_path / "server.log") as address:
        check(bin_dir, address, name)
        prompt = {"segments": [{"type": "context", "text": "The answer is"}]}
        answer, = parity.run_batch(bin_dir, address, name, [prompt])
        encoder = reference.Encoder(make_models.TOKENIZERS / "qwen3" / "tokenizer.json")
        assert answer["prompt_token_ids"] == reference.encode_prompt(prompt, encoder).token_ids


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.parametrize("name", cases.REAL_MODELS)
def test_real_model(bin_dir, models_dir, tmp_path, name):
    models = parity.model_folders([name], models_dir, tmp_path)
    with parity.serving(bin_dir, models, tmp_path / "server.log") as address:
        check(bin_dir, address, name)
