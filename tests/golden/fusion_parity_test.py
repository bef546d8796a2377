"""Fused answers over gRPC in float32 equal Hugging Face's in lock-step: tokens, log-probabilities of
the fused distribution and of every member within 1e-3, for all four methods.

Collected by pytest (tests/run.sh). The random models need nothing but the built programs; the real
ones need tests/models/fetch.sh.
"""

import json
import subprocess

import pytest

import cases
import compare
import fusion_cases
import parity


def ask(bin_dir, address, model, prompt, method):
    """The result object of `structattn generate --fusion`."""
    command = [bin_dir / "structattn", "generate", "--prompt", "-", "--server", address, "--model",
               model, "--json", "--ignore-eos", "--max-tokens", str(fusion_cases.NEW_TOKENS),
               "--fusion", method]
    if method.startswith("weighted"):
        weights = fusion_cases.weights_of(method, len(fusion_cases.groups_of(prompt)))
        command += ["--weights", ",".join(str(3 * weight) for weight in weights)]
    done = subprocess.run(command, input=json.dumps(prompt), capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def compare_answer(result, golden):
    """(tokens compared, worst error); a step where the two best are closer than FORK may go either
    way and ends the comparison."""
    worst = 0.0
    for step, (expected, margin) in enumerate(zip(golden["token_ids"], golden["margins"])):
        label = f"{golden['id']}: step {step}"
        if result["token_ids"][step] != expected:
            assert margin < compare.FORK, label
            return step, worst
        pairs = [(result["logprobs"][step], golden["logprobs"][step]),
                 *zip(result["fusion"]["member_logprobs"][step], golden["member_logprobs"][step],
                      strict=True)]
        worst = max(worst, *(abs(ours - theirs) for ours, theirs in pairs))
        assert worst <= compare.LOGPROB_TOLERANCE, f"{label}: {pairs}"
    return len(golden["token_ids"]), worst


def check(bin_dir, address, name):
    goldens = cases.read_jsonl(fusion_cases.golden_path(name))
    tokens, worst = 0, 0.0
    for (prompt, method), golden in zip(fusion_cases.cases_of(name), goldens, strict=True):
        assert prompt["id"] == golden["id"]
        result = ask(bin_dir, address, name, prompt, method)
        weights = [member["weight"] for member in result["fusion"]["members"]]
        assert weights == pytest.approx(golden["weights"], abs=1e-9)
        compared, error = compare_answer(result, golden)
        tokens, worst = tokens + compared, max(worst, error)
    print(f"{name}: {len(goldens)} answers, {tokens} tokens equal, worst error {worst:.1e}")


@pytest.mark.parametrize("name", [name for name in fusion_cases.models()
                                  if name not in cases.REAL_MODELS])
def test_random_model(bin_dir, tmp_path, name):
    models = parity.model_folders([name], None, tmp_path)
    with parity.serving(bin_dir, models, tmp_path / "server.log") as address:
        check(bin_dir, address, name)


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.parametrize("name", cases.REAL_MODELS)
def test_real_model(bin_dir, models_dir, tmp_path, name):
    models = parity.model_folders([name], models_dir, tmp_path)
    with parity.serving(bin_dir, models, tmp_path / "server.log") as address:
        check(bin_dir, address, name)
