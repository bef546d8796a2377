"""The tokenizers against PyPI `tokenizers`: oracle.py on every family, and the Unicode tables."""

import argparse
import subprocess
import sys

import pytest

import oracle

FAMILIES = sorted(path.parent.name for path in oracle.FIXTURES.glob("*/tokenizer.json"))
EVERY_FAMILY = FAMILIES + list(oracle.VARIANTS)


def compare(bin_dir, family, count, models=None, hostile=0):
    tool = bin_dir / "tokenizer_tool"
    assert tool.exists(), "build the target tokenizer_tool"
    arguments = argparse.Namespace(tool=str(tool), count=count, seed=1, models=models,
                                   hostile=hostile)
    assert oracle.compare_family(arguments, family), "see the differences printed above"


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_sample(bin_dir, family):
    compare(bin_dir, family, 500, hostile=3)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_family(bin_dir, family):
    compare(bin_dir, family, 20_000, hostile=50)


@pytest.mark.long
@pytest.mark.parametrize("family", list(oracle.VARIANTS))
def test_variant(bin_dir, family):
    compare(bin_dir, family, 20_000, hostile=50)


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.parametrize("family", list(oracle.REAL))
def test_real_vocabulary_from_json_and_gguf(bin_dir, models_dir, family):
    compare(bin_dir, family, 20_000, models_dir, hostile=50)


@pytest.mark.slow
def test_unicode_tables_are_what_the_library_does(root):
    script = root / "tests" / "tools" / "make_unicode_tables.py"
    subprocess.run([sys.executable, str(script), "--check"], check=True)
