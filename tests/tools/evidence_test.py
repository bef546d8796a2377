"""evidence.py: a row a test, with its result and its own last line."""

import evidence

RESULTS = """<testsuites><testsuite>
<testcase classname="golden.parity_test" name="test_a" time="61.4"><system-out>
------- Captured Out -------
first
20000 strings | 0 differ
</system-out></testcase>
<testcase classname="golden.parity_test" name="test_b" time="1.0"><failure message=""/></testcase>
</testsuite></testsuites>"""


def test_writes_a_row_a_test(tmp_path):
    path = tmp_path / "long.xml"
    path.write_text(RESULTS)
    assert evidence.rows(path) == [
        "| golden.parity_test.test_a | passed | 61 | 20000 strings \\| 0 differ |",
        "| golden.parity_test.test_b | failed | 1 |  |"]
