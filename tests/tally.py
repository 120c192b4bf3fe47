#!/usr/bin/python3
"""Adds up the test reports of one `./dev test` run.

Usage: tally.py REPORTS_DIR PART...   Each PART has left PART.xml (JUnit, by CTest or pytest) and PART.status there.
A Check program reports its own number of cases ("100%: Checks: 12, Failures: 0, Errors: 0"): those are counted, not
programs. A part without a report, or one that ended badly with no failed test in its report, is one failure: nothing
that breaks can look like success. Below the table each failed test has a line with the beginning of its reason, so that the
end of a log says what failed. The last line is `N passed, M failed[, K skipped]`; the exit status is 1 if M > 0.
"""
import pathlib
import re
import sys
import xml.etree.ElementTree

CHECK_LINE = re.compile(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)", re.M)
CHECK_BROKEN = re.compile(r"^(?:.*/)?([^/\s]+:\d+:[FE]:.*)", re.M)  # one case of a Check program
TELLING = re.compile(r"^E  +(\S.*)|^(.*(?:ERROR: |runtime error: ).*)", re.M)  # what pytest and the sanitizers begin a reason with
FAILED_SHOWN = 25
REASON_LINES, REASON_CHARACTERS = 3, 400


def name_of(case):
    return f"{case.get('classname') or ''} {case.get('name')}".strip()


def short(text):
    """The first lines of a text as one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[:REASON_LINES])[:REASON_CHARACTERS]


def reasons_of(case):
    """Why this <testcase> failed: a line for each case of a Check program, else one."""
    output = case.findtext("system-out") or ""
    of_check = CHECK_BROKEN.findall(output)
    if of_check:
        return [short(line) for line in of_check]
    found = case.find("failure") if case.find("failure") is not None else case.find("error")
    message, text = (found.get("message") or "", found.text or "") if found is not None else ("", "")
    if len(message.split()) <= 2:  # "Failed", "SEGFAULT", "collection failure": the output says more
        said = text.strip() or output.strip()
        telling = TELLING.search(said)
        more = (telling.group(1) or telling.group(2)) if telling else said.rpartition("\n")[2]
        message = ": ".join(part for part in (message, more) if part)
    return [short(message) or "no reason given"]


def count_case(case):
    """(passed, failed, skipped, why it was skipped) of one <testcase>."""
    skipped = case.find("skipped")
    if skipped is not None:
        reason = skipped.get("message") or (skipped.text or "").strip() or "no reason given"
        return 0, 0, 1, f"{name_of(case)}: {reason}"
    broken = case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail"
    output = case.findtext("system-out") or ""
    cases = CHECK_LINE.findall(output)
    total = sum(int(run) for run, _, _ in cases)
    bad = sum(int(failures) + int(errors) for _, failures, errors in cases)
    if broken:
        return max(total - bad, 0), max(bad, 1), 0, None
    return max(total, 1), 0, 0, None


def tally_part(reports, part):
    """(passed, failed, skipped, why some were skipped, what failed and why) of one part."""
    passed = failed = skipped = 0
    left_out, broken = [], []
    try:
        root = xml.etree.ElementTree.parse(reports / f"{part}.xml").getroot()
        for case in root.iter("testcase"):
            good, bad, missed, reason = count_case(case)
            passed, failed, skipped = passed + good, failed + bad, skipped + missed
            if reason:
                left_out.append(reason)
            if bad:
                broken += [f"{name_of(case)}: {why}" for why in reasons_of(case)]
    except (OSError, xml.etree.ElementTree.ParseError) as problem:
        return 0, 1, 0, [], [f"no report ({problem})"]
    try:
        status = int((reports / f"{part}.status").read_text())
    except (OSError, ValueError):
        status = 1
    # 5 is pytest's "no tests were collected".
    if status not in (0, 5) and failed == 0:
        failed = 1
        broken.append(f"ended with status {status}, though no test in its report failed")
    return passed, failed, skipped, left_out, broken


def main(arguments):
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 64
    reports = pathlib.Path(arguments[0])
    total, all_broken = [0, 0, 0], []
    for part in arguments[1:]:
        passed, failed, skipped, left_out, broken = tally_part(reports, part)
        for reason in left_out:
            print(f"skipped: {part}: {reason}")
        print(f"{part:12} {passed:5} passed {failed:5} failed {skipped:5} skipped")
        total = [a + b for a, b in zip(total, (passed, failed, skipped))]
        all_broken += [f"failed: {part}: {line}" for line in broken]
    for line in all_broken[:FAILED_SHOWN]:
        print(line)
    if len(all_broken) > FAILED_SHOWN:
        print(f"and {len(all_broken) - FAILED_SHOWN} more, see {reports}")
    line = f"{total[0]} passed, {total[1]} failed"
    print(line + (f", {total[2]} skipped" if total[2] else ""))
    return 1 if total[1] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
