"""summary.py: no way of not running counts as passed."""

import pytest

import summary

CTEST = """<testsuite>
<testcase name="A.ok" classname="A.ok" status="run"/>
<testcase name="A.bad" classname="A.bad" status="fail"><failure message=""/></testcase>
<testcase name="A.skip" classname="A.skip" status="notrun">
  <skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/></testcase>
<testcase name="A.off" classname="A.off" status="disabled"/>
<testcase name="b_NOT_BUILT" classname="b_NOT_BUILT" status="notrun">
  <skipped message="Unable to find executable"/></testcase>
</testsuite>"""
PYTEST = """<testsuites><testsuite>
<testcase classname="x.y" name="ok"/>
<testcase classname="x.y" name="error"><error message="fixture"/></testcase>
<testcase classname="x.y" name="skip"><skipped message="no model"/></testcase>
</testsuite></testsuites>"""


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


def test_adds_up_runners(tmp_path):
    paths = [write(tmp_path, "ctest.xml", CTEST), write(tmp_path, "pytest.xml", PYTEST)]
    assert summary.summarise(paths) == (
        ["A.bad", "b_NOT_BUILT", "x.y.error"], "2 passed, 3 failed, 3 skipped")


def test_leaves_out_zero_skipped(tmp_path):
    path = write(tmp_path, "a.xml", '<testsuite><testcase name="a"/></testsuite>')
    assert summary.summarise([path]) == ([], "1 passed, 0 failed")


@pytest.mark.parametrize("text", ["", "<testsuite>", "<testsuite/>"])
def test_runner_without_results_failed(tmp_path, text):
    failed, line = summary.summarise([write(tmp_path, "ctest.xml", text)])
    assert line == "0 passed, 1 failed" and failed[0].startswith("ctest: ")


def test_missing_file_failed(tmp_path):
    assert summary.summarise([tmp_path / "none.xml"])[1] == "0 passed, 1 failed"
