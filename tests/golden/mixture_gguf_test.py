"""Mixtures of experts in GGUF files: the file of a folder's weights gives the folder's answers.

Run by pytest with the other tests. The folder's answers are Hugging Face's goldens; the files are
written with PyPI `gguf` as llama.cpp's converter lays them out.
"""

import pytest

import cases
import compare
import make_models
import parity
import serving
import write_gguf

MIXTURES = [name for name in make_models.MODELS if make_models.shape_of(name)["experts"]]


@pytest.fixture(scope="module")
def gguf_server(bin_dir, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("gguf")
    models = {name: scratch / f"{name}.gguf" for name in MIXTURES}
    for name, path in models.items():
        write_gguf.write_gguf(path, name)
    with serving.serving(bin_dir, models, scratch / "server.log") as address:
        yield address


@pytest.mark.parametrize("name", MIXTURES)
def test_a_file_gives_the_answers_of_its_folder(bin_dir, gguf_server, name):
    results = parity.run_batch(bin_dir, gguf_server, name, cases.cases_of(name), ["--ignore-eos"])
    report = compare.compare(results, cases.golden_path(name))
    print(report.summary())
    assert not report.failures, "\n".join(report.failures[:10])


def test_packed_experts_give_the_bits_of_the_expanded_file(bin_dir, tmp_path):
    path = tmp_path / "m.gguf"
    write_gguf.write_gguf(path, MIXTURES[0], "Q8_0")
    lines = cases.cases_of(MIXTURES[0])[::10]
    answers, formats = [], []
    for form in ("stored", "none"):
        server = serving.Server(bin_dir, {"m": path}, tmp_path / "log",
                                ["--dtype", "float32", "--quantization", form])
        try:
            results = parity.run_batch(bin_dir, server.address, "m", lines, ["--ignore-eos"])
            loaded, = server.log_events("model_loaded")
        finally:
            assert server.stop() == 0
        answers.append([(result["token_ids"], result["logprobs"]) for result in results])
        formats.append(loaded["weight_format"])
    assert formats == ["Q8_0", "float32"]
    assert answers[0] == answers[1]
