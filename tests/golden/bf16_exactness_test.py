"""The exactness rule of bfloat16 as tests: as near to Hugging Face float32 as Hugging Face bfloat16 is.

Collected by pytest (tests/run.sh). The work is done by bf16_exactness.py. The random models need
nothing but the built programs; the real ones need tests/models/fetch.sh.
"""

import pytest

import bf16_exactness
import cases
import make_models


def check(bin_dir, name, folder):
    ours, theirs, tokens = bf16_exactness.measure(bin_dir, name, folder)
    print(f"{name}: {ours:.6f} over {tokens} tokens, Hugging Face {theirs:.6f}")
    assert ours <= bf16_exactness.LIMIT * theirs


@pytest.mark.parametrize("name", make_models.MODELS)
def test_random_model(bin_dir, tmp_path, name):
    check(bin_dir, name, make_models.make_model(tmp_path, name))


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.parametrize("name", cases.REAL_MODELS)
def test_real_model(bin_dir, models_dir, name):
    check(bin_dir, name, models_dir / f"{name}-hf")


def test_measure_sees_rounding(bin_dir, tmp_path):
    """float32 is nearer by far: the measure is not blind."""
    name = next(iter(make_models.MODELS))
    ours, theirs, _ = bf16_exactness.measure(bin_dir, name, make_models.make_model(tmp_path, name),
                                             dtype="float32")
    assert ours < 0.05 * theirs
