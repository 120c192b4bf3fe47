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
