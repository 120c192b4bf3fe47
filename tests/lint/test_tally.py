"""tally.py: nothing that breaks may look like success."""
import pathlib
import subprocess
import sys

import pytest

TALLY = pathlib.Path(__file__).resolve().parents[1] / "tally.py"
CTEST = """<testsuite><testcase name="base.buf" status="run"><system-out>Running suite(s): buf
100%: Checks: 12, Failures: 0, Errors: 0</system-out></testcase>{}</testsuite>"""
BROKEN = """<testcase name="base.map" status="fail"><failure message="Failed"/><system-out>
80%: Checks: 5, Failures: 1, Errors: 0</system-out></testcase>"""
CRASHED = '<testcase name="base.map" status="fail"><failure message="SEGFAULT"/><system-out>boom</system-out></testcase>'
SKIPPED = '<testcase classname="mcp" name="client"><skipped message="no registry"/></testcase>'


@pytest.mark.parametrize("report, status, last_line, code", [
    (CTEST.format(""), "0", "12 passed, 0 failed", 0),
    (CTEST.format(BROKEN), "8", "16 passed, 1 failed", 1),
    (CTEST.format(CRASHED), "8", "12 passed, 1 failed", 1),
    (CTEST.format(SKIPPED), "0", "12 passed, 0 failed, 1 skipped", 0),
    (CTEST.format(""), "2", "12 passed, 1 failed", 1),
    ("<testsuite></testsuite>", "5", "0 passed, 0 failed", 0),
    ("not xml", "0", "0 passed, 1 failed", 1),
    (None, "0", "0 passed, 1 failed", 1),
    (CTEST.format(""), None, "12 passed, 1 failed", 1),
])
def test_tally(tmp_path, report, status, last_line, code):
    if report is not None:
        (tmp_path / "unit.xml").write_text(report)
    if status is not None:
        (tmp_path / "unit.status").write_text(status)
    out = subprocess.run([sys.executable, TALLY, tmp_path, "unit"], capture_output=True, text=True, check=False)
    assert out.stdout.splitlines()[-1] == last_line
    assert out.returncode == code
    if "skipped" in last_line:
        assert "skipped: unit: mcp client: no registry" in out.stdout


PYTEST = """<testsuite><testcase classname="tests.test_x" name="test_a"><failure message="AssertionError: why&#10;&#10;  more&#10;assert 1&#10;fourth">x
</failure></testcase><testcase classname="" name="tests.test_y"><error message="collection failure">Traceback:
tests/test_y.py:1: in module
E   ModuleNotFoundError: No module named 'y'
</error></testcase></testsuite>"""
CHECK = """<testsuite><testcase name="base.map" status="fail"><failure message="Failed"/><system-out>
60%: Checks: 5, Failures: 1, Errors: 1
/a/place/map_test.c:12:F:map:test_put:0: Assertion 'x == 1' failed: x == 2
/a/place/map_test.c:30:E:map:test_get:0: (after this point) Received signal 11
</system-out></testcase></testsuite>"""
FUZZ = """<testsuite><testcase classname="fuzz" name="json"><failure message="json broke">#0 READ
==7==ERROR: AddressSanitizer: heap-buffer-overflow
    #0 in x
</failure></testcase></testsuite>"""
CHAOS = """<testsuite><testcase classname="chaos" name="kill core ready"><failure message="2 requests at door mcp2 were broken: no answer">
2 requests at door mcp2 were broken: no answer
</failure></testcase></testsuite>"""


@pytest.mark.parametrize("report, status, wanted", [
    (PYTEST, "1", ["tests.test_x test_a: AssertionError: why | more | assert 1",
                   "tests.test_y: collection failure: ModuleNotFoundError: No module named 'y'"]),
    (CHECK, "8", ["base.map: map_test.c:12:F:map:test_put:0: Assertion 'x == 1' failed: x == 2",
                  "base.map: map_test.c:30:E:map:test_get:0: (after this point) Received signal 11"]),
    (CTEST.format(CRASHED), "8", ["base.map: SEGFAULT: boom"]),
    (FUZZ, "1", ["fuzz json: json broke: ==7==ERROR: AddressSanitizer: heap-buffer-overflow"]),
    (CHAOS, "1", ["chaos kill core ready: 2 requests at door mcp2 were broken: no answer"]),
    (CTEST.format(""), "2", ["ended with status 2, though no test in its report failed"]),
    (CTEST.format(SKIPPED), "0", []),
])
def test_each_failed_test_is_named_with_its_reason_right_before_the_last_line(tmp_path, report, status, wanted):
    for part, text, ended in (("unit", report, status), ("asan", CTEST.format(""), "0")):
        (tmp_path / f"{part}.xml").write_text(text)
        (tmp_path / f"{part}.status").write_text(ended)
    lines = subprocess.run([sys.executable, TALLY, tmp_path, "unit", "asan"], capture_output=True, text=True, check=False).stdout.splitlines()
    assert lines[-1 - len(wanted):-1] == [f"failed: unit: {line}" for line in wanted]
    assert lines[-2 - len(wanted)].startswith("asan ")  # the table is whole before the first of them


def test_of_many_failed_tests_the_first_are_named_and_the_others_counted(tmp_path):
    cases = "".join(f'<testcase classname="c" name="n{number}"><failure message="{"y" * 5000} z"/></testcase>' for number in range(30))
    (tmp_path / "lint.xml").write_text(f"<testsuite>{cases}</testsuite>")
    (tmp_path / "lint.status").write_text("1")
    lines = subprocess.run([sys.executable, TALLY, tmp_path, "lint"], capture_output=True, text=True, check=False).stdout.splitlines()
    assert len(lines) == 1 + 25 + 2 and max(map(len, lines)) < 500
    assert lines[25].startswith("failed: lint: c n24: yyy") and lines[-2].startswith("and 5 more") and lines[-1] == "0 passed, 30 failed"
