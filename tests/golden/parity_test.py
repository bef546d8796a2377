"""The parity bar as tests: float32 answers over gRPC equal Hugging Face eager's, model by model.

Collected by pytest (tests/run.sh). The work is done by parity.py. The random models need nothing
but the built programs; the real ones need tests/models/fetch.sh.
"""

import pytest

import cases
import make_models
import parity


@pytest.fixture(scope="module")
def small_server(bin_dir, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("parity")
    models = parity.model_folders(make_models.MODELS, None, scratch)
    with parity.serving(bin_dir, models, scratch / "server.log") as address:
        yield address


def check(bin_dir, address, name):
    for label, report in parity.ask(bin_dir, address, name):
        print(f"{label}: {report.summary()}")
        assert not report.failures, "\n".join([label, *report.failures[:10]])


@pytest.mark.parametrize("name", make_models.MODELS)
def test_random_model(bin_dir, small_server, name):
    check(bin_dir, small_server, name)


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.parametrize("name", cases.REAL_MODELS)
def test_real_model(bin_dir, models_dir, tmp_path, name):
    models = parity.model_folders([name], models_dir, tmp_path)
    header = cases.read_jsonl(cases.golden_path(name))[0]
    assert make_models.weights_digest(models[name]) == header["weights_sha256"], (
        "these are not the weights that the goldens were made with")
    with parity.serving(bin_dir, models, tmp_path / "server.log") as address:
        check(bin_dir, address, name)
