"""Quantised folders answer as the float32 folders that they expand to.

Run by pytest with the other tests. Codes and scales are exact in float32, packed or expanded, so
tokens and log-probabilities must be equal to the last bit; that the expanded folders' numbers are
Hugging Face's is what parity_test.py holds.
"""

import pytest

import cases
import make_quantized
import parity
import serving

PRESETS = ("anchored", "shared", "isolated", "causal")
PROMPTS = ("six", "shots", "context")


def prompts_of(name):
    """A few prompts under every preset and both kinds of positions."""
    base = make_quantized.FORMS[name][0]
    lines = [line for line in cases.cases_of(base) if line["id"].split("/")[0] in PROMPTS
             and line.get("rule") in PRESETS]
    return [{**line, "id": f"{line['id']}/{positions}", "positions": positions}
            for line in lines for positions in ("sequential", "aligned")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("quantized")
    made = {}
    for name in make_quantized.FORMS:
        made[name], made[f"{name}-expanded"] = make_quantized.make_folder(root, name)
    return made


@pytest.fixture(scope="module")
def server(bin_dir, folders, tmp_path_factory):
    log = tmp_path_factory.mktemp("quantized-server") / "log"
    running = serving.Server(bin_dir, folders, log, ["--dtype", "float32"])
    yield running
    assert running.stop() == 0


@pytest.mark.parametrize("name", make_quantized.FORMS)
def test_answers_are_those_of_the_expanded_folder(bin_dir, server, name):
    lines = prompts_of(name)
    assert len(lines) == 2 * len(PRESETS) * len(PROMPTS)
    packed, expanded = (parity.run_batch(bin_dir, server.address, model, lines, ("--ignore-eos",))
                        for model in (name, f"{name}-expanded"))
    assert len(packed) == len(expanded) == len(lines)
    for one, other in zip(packed, expanded):
        assert one["token_ids"] == other["token_ids"], one["id"]
        assert one["logprobs"] == other["logprobs"], one["id"]


@pytest.mark.parametrize("name", make_quantized.FORMS)
def test_provenance_names_the_form(server, name):
    _, _, _, form, packed = make_quantized.FORMS[name]
    formats = {event["model"]: event["weight_format"]
               for event in server.log_events("model_loaded")}
    assert formats[name] == "+".join(sorted([form if packed else f"{form}:float32", "float32"]))
    assert formats[f"{name}-expanded"] == "float32"
