"""The forms of weights that the server can be told to keep, on whole models over the wire.

Run by pytest with the other tests. A GGUF file's blocks, kept packed, must give in float32 the very
tokens and log-probabilities of the expanded file; int8 must stay near the model that it rounds.
"""

import json

import cases
import parity
import pytest
import serving

PROMPTS = 6


def run(bin_dir, path, scratch, *flags):
    """Answers to a few golden prompts of SmolLM2, and what the server says its weights are."""
    server = serving.Server(bin_dir, {"m": path}, scratch / "log", flags)
    try:
        lines = cases.cases_of("smollm2")[::11][:PROMPTS]
        results = parity.run_batch(bin_dir, server.address, "m", lines, ("--ignore-eos",))
        loaded, = server.log_events("model_loaded")
    finally:
        assert server.stop() == 0
    assert len(results) == len(lines)
    return [(result["token_ids"], result["logprobs"]) for result in results], loaded["weight_format"]


@pytest.mark.models
@pytest.mark.slow
def test_packed_blocks_give_the_bits_of_the_expanded_file(bin_dir, models_dir, tmp_path):
    path = models_dir / "smollm2.gguf"
    packed, form = run(bin_dir, path, tmp_path, "--dtype", "float32")
    assert form == "Q4_1+Q8_0"
    expanded, form = run(bin_dir, path, tmp_path, "--dtype", "float32", "--quantization", "none")
    assert form == "float32"
    assert packed == expanded


def test_int8_is_near_the_model_that_it_rounds(cli, server, start_server, tmp_path):
    prompt = {"segments": [{"type": "context", "text": "One, two, three. "},
                           {"type": "question", "paraphrase_index": 0, "text": "And then?"}],
              "continuations": [" Four, five, six and seven."]}
    given, answered = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text(json.dumps(prompt) + "\n", encoding="utf-8")
    rounded = start_server("--quantization", "int8")
    scores = []
    for running in (server, rounded):
        done = cli("score", given, "-o", answered, server=running)
        assert done.returncode == 0, done.stderr
        scores.append(cases.read_jsonl(answered)[0]["scores"][0]["token_logprobs"])
        answered.unlink()
    loaded, = rounded.log_events("model_loaded")
    assert loaded["weight_format"] == "int8"
    differences = [abs(a - b) for a, b in zip(*scores, strict=True)]
    # Random weights make logits that are far apart; a wrong scale or code would move them by several.
    assert 0 < sum(differences) / len(differences) < 0.3, differences
