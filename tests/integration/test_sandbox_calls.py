"""The tables of the sandbox are minimal (LIF-14): the core and each module kind run its workload under strace; what it calls is compared with
supervisor/sandbox_calls.def. A call that is not in the table fails, and so does an entry that nothing makes and nothing explains."""
import os
import pathlib
import re
import signal

import pytest

from harness import ROOT, gateway as gateways, traced, workload
from harness.processes import wait_until
from harness.sanitizers import sanitized
from test_store_faults import apply_team, damage_header, small_disk, write_until_refused  # noqa: F401 (small_disk is a fixture)

TABLE = ROOT / "supervisor" / "sandbox_calls.def"
ENTRY = re.compile(r'^CALL\((\w+), ([A-Z |]+), (\w+), "(.*)"\)$', re.M)
GROUPS = {"B": "MRCK", "A": "MRCKGS"}
# program -> profile. /proc/self/exe is the worker of gatehouse-rest, which starts in the same sandbox.
KINDS = {"gatehouse-mcp": "M", "gatehouse-rest": "R", "gatehouse-console": "C", "gatehouse-core": "K"}
ASIDE = {"gatehouse-rest": ("exe",)}

pytestmark = [pytest.mark.skipif(not traced.STRACE, reason="strace is not installed"),
              pytest.mark.skipif(sanitized(), reason="a build with sanitizers makes calls of its own"),
              pytest.mark.skipif(gateways.missing() is not None, reason=str(gateways.missing()))]


def table(profile):
    """{call: (condition, reason)} of a profile."""
    found = {}
    for name, profiles, condition, reason in ENTRY.findall(TABLE.read_text()):
        letters = "".join(GROUPS.get(letter.strip(), letter.strip()) for letter in profiles.split("|"))
        if profile in letters:
            found[name] = (condition, reason)
    return found


@pytest.fixture(scope="module")
def made(worldclock, notes, tmp_path_factory):
    """{program: {call: line}} of one run of the workload."""
    directory = tmp_path_factory.mktemp("traced")
    path, tls = directory / "calls", workload.TlsServer(directory)
    try:
        with gateways.Gateway(workload.configuration(), under=traced.command(path)) as started:
            pid = started.process.pid
            workload.run(started, workload.catalog(worldclock.port, notes.port, tls.port))
            workload.operate(started)
        traced.wait_written(path, pid)
    finally:
        tls.close()
    return traced.calls(path)


def test_every_line_of_the_table_is_understood():
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("CALL(")]
    assert len(lines) == len(ENTRY.findall(TABLE.read_text())) > 100


def of(made, program):
    together = dict(made[program])
    for other in ASIDE.get(program, ()):
        together.update({name: line for name, line in made[other].items() if name not in together})
    return together


@pytest.mark.parametrize("program", KINDS)
def test_no_call_that_is_needed_is_missing(made, program):
    allowed = table(KINDS[program])
    missing = {name: line for name, line in of(made, program).items() if name not in allowed or allowed[name][0] == "KILL"}
    assert not missing, f"{program} is refused: {missing}"


@pytest.mark.parametrize("program", KINDS)
def test_no_call_is_allowed_without_use_or_reason(made, program):
    used = of(made, program)
    idle = [name for name, (condition, reason) in table(KINDS[program]).items() if name not in used and not reason and condition not in ("KILL", "ABSENT")]
    assert not idle, f"{program} never makes these, and no reason is written: {idle}"


@pytest.mark.parametrize(("profile", "removed"), [("M", "connect"), ("C", "getpeername")])
def test_the_comparison_would_notice(made, profile, removed):
    """An entry too few and one too many are both seen."""
    program = next(name for name, kind in KINDS.items() if kind == profile)
    assert removed in of(made, program) and removed in table(profile)
    assert "mkdir" not in of(made, program) and "mkdir" not in table(profile)


def refused(made, programs):
    """Lines of calls that were refused; that a process is there is told to the core by Landlock's refusal to signal it."""
    return {line for program in programs for line in of(made, program).values() if re.search(r"= -1 EPERM", line) and
            not re.match(r"kill\(\d+, 0\)", line)}


def test_a_core_whose_store_fails_needs_nothing_more(worldclock, notes, small_disk, tmp_path):
    """A full disk, room again, a damaged file: the core says so in the same calls."""
    path, ballast, state = tmp_path / "calls", small_disk / "ballast", small_disk / "state"
    ballast.write_bytes(b"\0" * 1024 * 1024)
    state.mkdir()
    with gateways.Gateway(env={"GATEHOUSE_STATE": str(state)}, under=traced.command(path)) as started:
        pid = started.process.pid
        started.apply(gateways.quickstart_catalog(worldclock.port, notes.port))
        assert "store.full" in write_until_refused(started)[1].stderr
        ballast.unlink()
        wait_until(lambda: apply_team(started, "after-room").returncode == 0, "writes to go on when there is room", 30, pause_s=0.2)
        core = started.kill("core", signal.SIGSTOP)  # nothing is written any more by this one, which could undo the damage
        wait_until(lambda: re.search(r"^State:\t[Tt]", pathlib.Path(f"/proc/{core['pid']}/status").read_text(), re.M), "the core to stop")
        for extra in ("-wal", "-shm"):
            (state / f"gatehouse.db{extra}").unlink()
        damage_header(state / "gatehouse.db")
        os.kill(core["pid"], signal.SIGKILL)
        wait_until(lambda: "store.corrupt" in started.log(), "the core to see the damage", 30)
    traced.wait_written(path, pid)
    made = traced.calls(path)
    missing = {name: line for name, line in made["gatehouse-core"].items() if name not in table("K")}
    assert not missing and not refused(made, ["gatehouse-core"]), (missing, refused(made, ["gatehouse-core"]))


def test_the_calls_of_a_module_in_c_fit_the_generic_profile(made):
    missing = set(of(made, "gatehouse-hello")) - set(table("G"))
    assert not missing, missing


def test_the_filter_that_runs_is_the_table(made):
    """The programs above ran with it: nothing that they asked for was refused but what they try and do without."""
    assert not refused(made, KINDS), refused(made, KINDS)
