#!/usr/bin/python3
"""Adds up the test reports of one `./dev test` run.

Usage: tally.py REPORTS_DIR PART...   Each PART has left PART.xml (JUnit, by CTest or pytest) and PART.status there.
A Check program reports its own number of cases ("100%: Checks: 12, Failures: 0, Errors: 0"): those are counted, not
programs. A part without a report, or one that ended badly with no failed test in its report, is one failure: nothing
that breaks can look like success. The last line is `N passed, M failed[, K skipped]`; the exit status is 1 if M > 0.
"""
import pathlib
import re
import sys
import xml.etree.ElementTree

CHECK_LINE = re.compile(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)", re.M)


def count_case(case):
    """(passed, failed, skipped, reason) of one <testcase>."""
    skipped = case.find("skipped")
    if skipped is not None:
        reason = skipped.get("message") or (skipped.text or "").strip() or "no reason given"
        return 0, 0, 1, f"{case.get('classname') or ''} {case.get('name')}: {reason}".strip()
    broken = case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail"
    output = case.findtext("system-out") or ""
    cases = CHECK_LINE.findall(output)
    total = sum(int(run) for run, _, _ in cases)
    bad = sum(int(failures) + int(errors) for _, failures, errors in cases)
    if broken:
        return max(total - bad, 0), max(bad, 1), 0, None
    return max(total, 1), 0, 0, None


def tally_part(reports, part):
    """(passed, failed, skipped, reasons) of one part."""
    passed = failed = skipped = 0
    reasons = []
    try:
        root = xml.etree.ElementTree.parse(reports / f"{part}.xml").getroot()
        for case in root.iter("testcase"):
            good, bad, left_out, reason = count_case(case)
            passed, failed, skipped = passed + good, failed + bad, skipped + left_out
            if reason:
                reasons.append(reason)
    except (OSError, xml.etree.ElementTree.ParseError) as problem:
        print(f"{part}: no report ({problem})")
        return 0, 1, 0, []
    try:
        status = int((reports / f"{part}.status").read_text())
    except (OSError, ValueError):
        status = 1
    # 5 is pytest's "no tests were collected".
    if status not in (0, 5) and failed == 0:
        print(f"{part}: ended with status {status}, though no test in its report failed")
        failed = 1
    return passed, failed, skipped, reasons


def main(arguments):
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 64
    reports = pathlib.Path(arguments[0])
    total = [0, 0, 0]
    for part in arguments[1:]:
        passed, failed, skipped, reasons = tally_part(reports, part)
        for reason in reasons:
            print(f"skipped: {part}: {reason}")
        print(f"{part:12} {passed:5} passed {failed:5} failed {skipped:5} skipped")
        total = [a + b for a, b in zip(total, (passed, failed, skipped))]
    line = f"{total[0]} passed, {total[1]} failed"
    print(line + (f", {total[2]} skipped" if total[2] else ""))
    return 1 if total[1] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
