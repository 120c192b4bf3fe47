"""Modules that do not behave: each gets a clear state, reason and code in `gatehouse status`, and the others serve (LIF-3, LIF-7,
SPI-1, SPI-17, TRN-4, DSC-5). And well-behaved ones in another language, over gRPC and over HTTP/JSON (TRN-1, TRN-2)."""
import json
import pathlib
import re

import pytest

from harness import gateway as gateways
from harness.mcp import ModernMcp
from harness.processes import wait_until

PYMODULE = pathlib.Path(__file__).resolve().parent / "modules" / "pymodule.py"
START_TIMEOUT_MS = 4000  # of those whose fault it is that they are late; many start at once here
WINDOW_S = 600
QUARANTINE = {"window_ms": WINDOW_S * 1000}  # six deaths are too many, however long this machine takes for so many starts

# Killed when its time is over, or refused and then killed, and started again.
BAD = ("failed", "stopped", "backoff", "quarantined", "starting", "discovered", "registered", "initializing", "warming")
LATE = r"module\.start\.timeout"
UNUSABLE = ("absent", "rubbish", "plain")
# behaviour of modules/pymodule.py -> states that are right, what the reason says
FAULTS = {
    "exits": (BAD, r"left with status 3.*module\.exited"),
    "hangs": (BAD, LATE),
    "garbage_socket": (BAD, LATE),
    "silent_socket": (BAD, LATE),
    "garbage_descriptor": (BAD, r"cannot be decoded.*rpc\.message\.malformed"),
    "lies_about_id": (BAD, r'says it is "mcp".*module\.descriptor\.invalid'),
    "lies_about_family": (BAD, r"configured for family echo.*module\.descriptor\.invalid"),
    "other_spi_version": (BAD, r"SPI \[99\], the core speaks \[1\].*module\.spi\.incompatible"),
    "wants_too_much": (BAD, r"may not have SPI family psg.*module\.descriptor\.invalid"),
    "wants_unknown": (BAD, r'unknown SPI family "root".*module\.descriptor\.invalid'),
    "dies_in_initialize": (BAD, r"left with status 4.*module\.exited"),
    "needs_configuration": (BAD, r'schema refuses it: /: member "needed" is missing.*module\.config\.invalid'),  # SPI-15
    "refuses_initialize": (BAD, r"Initialize failed.*rpc\.status"),
    "garbage_initialize": (BAD, r"rpc\.message\.malformed"),
    "garbage_readiness": (BAD, r"readiness cannot be decoded.*rpc\.message\.malformed"),
    "proves_nothing": (BAD, r"deny path.*module\.canary\.failed"),
    "never_ready": (BAD, LATE),
}


def module_id(behaviour):
    return behaviour.replace("_", "-")


def sandbox(behaviour, directory, stubs):
    """What a Python program needs beside its profile. The probes are for the core's own refusals: nothing else stands in their way."""
    return {"read": [str(stubs)], "write": [str(directory)], "profile": "script" if behaviour == "http_json" else "generic",
            "mount_view": behaviour != "probes"}


def configured(behaviour, directory, stubs):
    late = behaviour in FAULTS and FAULTS[behaviour][1] == LATE
    return {"id": module_id(behaviour), "family": "echo", "binary": str(PYMODULE), "args": [behaviour],
            "start_timeout_ms": START_TIMEOUT_MS if late else 60000, "quarantine": QUARANTINE,
            "sandbox": sandbox(behaviour, directory, stubs),
            "env": {"PYMODULE_STUBS": str(stubs), "PYMODULE_REPORT": str(directory / module_id(behaviour))}}


def start(worldclock, notes, modules):
    """The quick start with more modules; waits for its own two only."""
    config = gateways.quickstart_config()
    good = [module["id"] for module in config["modules"]]
    config["modules"] += modules
    started = gateways.Gateway(config, wait=False)
    try:
        def served():
            processes = started.processes()
            return all(processes.get(name, {}).get("state") == "ready" for name in good)
        wait_until(served, "mcp and rest to be ready among bad modules", 60, pause_s=0.1)
        started.apply(gateways.quickstart_catalog(worldclock.port, notes.port))
    except BaseException:
        print(started.log()[-8000:])
        started.close()
        raise
    return started


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def zoo(worldclock, notes, stubs, reports):
    """A gateway with every bad module at once, and programs that are none."""
    reason = gateways.missing()
    if reason:
        pytest.skip(reason)
    rubbish = reports / "rubbish"
    rubbish.write_bytes(b"\x7fNOT-A-PROGRAM")
    rubbish.chmod(0o755)
    plain = reports / "plain"
    plain.write_text("not executable\n")
    modules = [configured(behaviour, reports, stubs) for behaviour in FAULTS]
    script = reports / "script"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    modules += [{"id": "script", "family": "echo", "binary": str(script), "sandbox": {"read": [str(reports)]}},
                *({"id": name, "family": "echo", "binary": str(binary), "quarantine": QUARANTINE}
                  for name, binary in zip(UNUSABLE, ("/nonexistent/program", rubbish, plain)))]
    with start(worldclock, notes, modules) as started:
        started.first = started.processes()
        yield started


def shows(gateway, name, states, reason):
    def there():
        process = gateway.processes().get(name, {})
        said = f"{process.get('reason', '')} {process.get('lastExit', '')}"
        return process.get("state") in states and re.search(reason, said) and process
    try:
        return wait_until(there, f"{name} to be one of {states} with {reason!r}", 90, pause_s=0.1)
    except AssertionError as error:
        raise AssertionError(f"{error}; now {gateway.processes().get(name)}") from None


@pytest.mark.parametrize("behaviour", FAULTS)
def test_a_bad_module_is_named_with_its_fault(zoo, behaviour):
    states, reason = FAULTS[behaviour]
    shows(zoo, module_id(behaviour), states, reason)


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_program_that_cannot_run(zoo, name):
    shows(zoo, name, ("backoff", "quarantined", "failed", "stopped"), r"could not be started: E\w+ in exec .module\.program\.unusable")


def test_a_shell_script_under_the_generic_profile_is_told_of_the_sandbox(zoo):
    shows(zoo, "script", ("backoff", "quarantined", "failed", "stopped"),
          r"left with status 126: it could not start a program \(sandbox\.profile\?\)")


def test_the_others_serve_beside_bad_modules(zoo):
    token = zoo.token(gateways.GUEST, "--team", "explorers")
    with ModernMcp(zoo.mcp_url, token) as mcp:
        for _ in range(20):
            assert mcp.call("convert_units", {"value": 1, "from_unit": "km", "to_unit": "m"}).result["structuredContent"]["result"] == 1000
    now = zoo.processes()
    for name in ("supervisor", "core", "mcp", "rest"):
        assert now[name]["pid"] == zoo.first[name]["pid"], f"{name} died"


@pytest.mark.parametrize("name", [*map(module_id, FAULTS), *UNUSABLE])
def test_lif_8_every_bad_version_ends_quarantined_with_its_fault(zoo, name):
    """More than five deaths in the window, or twice not ready in time: held down, by a decision that names the reason."""
    behaviour = name.replace("-", "_")
    fault = FAULTS[behaviour][1] if behaviour in FAULTS else r"module\.program\.unusable"
    process = shows(zoo, name, ("quarantined",), rf"(deaths in {WINDOW_S} s|times in a row); last: bad version, never ready: .*{fault}")
    assert "pid" not in process
    told = zoo.describe(name)
    late = fault == LATE
    assert len(told["deaths"]) == (2 if late else 6)
    assert {death["kind"] for death in told["deaths"]} == {"bad version"}
    assert sum(int(count["count"]) for count in told["deathCounts"]) == len(told["deaths"])
    assert told["history"][0]["toState"] == "quarantined"


def test_a_quarantine_is_an_alert(zoo):
    shows(zoo, "exits", ("quarantined",), "")
    assert re.search(r'^gatehouse_module_quarantined{module="exits"} 1$', zoo.ctl("metrics").stdout, re.MULTILINE)
    assert re.search(r'^gatehouse_module_deaths_total{module="exits",cause="exit code",kind="bad version"} 6$',
                     zoo.ctl("metrics").stdout, re.MULTILINE)
    alerts = wait_until(lambda: [line for line in zoo.log().splitlines() if "a module is quarantined" in line and '"exits"' in line], "the line of the log")
    assert len(alerts) == 1 and '"level":"error"' in alerts[0]


# ---- well-behaved, in another language; and one that tries what it may not ----

@pytest.fixture(scope="module")
def polyglot(worldclock, notes, stubs, reports):
    reason = gateways.missing()
    if reason:
        pytest.skip(reason)
    modules = [configured(behaviour, reports, stubs) for behaviour in ("good", "http_json", "probes")]
    with start(worldclock, notes, modules) as started:
        yield started


@pytest.mark.parametrize("behaviour", ["good", "http_json"])
def test_bnd_3_a_module_in_python_becomes_ready(polyglot, behaviour):
    process = shows(polyglot, module_id(behaviour), ("ready",), "")
    assert process["protocolFamily"] == "echo" and process["version"] == "1.0.0"


PROBES = {
    "before its phase": ("FAILED_PRECONDITION", "module.phase.wrong"),
    "canary": ("UNAUTHENTICATED", "auth.token.invalid"),
    "wrong secret": ("UNAUTHENTICATED", "auth.channel.denied"),
    "short secret": ("UNAUTHENTICATED", "auth.channel.denied"),
    "empty secret": ("UNAUTHENTICATED", "auth.channel.denied"),
    "missing secret": ("UNAUTHENTICATED", "auth.channel.denied"),
    "another module's socket": ("UNAUTHENTICATED", "auth.channel.denied"),
    "SPI method on the admin socket": ("UNAUTHENTICATED", "auth.channel.denied"),
    "family not granted": ("PERMISSION_DENIED", "auth.family.denied"),
    "garbage request": ("INVALID_ARGUMENT", "rpc.message.malformed"),
    "unknown method": ("UNIMPLEMENTED", "rpc.method.unknown"),
    "unknown service": ("UNIMPLEMENTED", "rpc.method.unknown"),
}


def probes(gateway, reports):
    shows(gateway, "probes", ("ready",), "")
    return json.loads((reports / "probes").read_text())


@pytest.mark.parametrize("probe", PROBES)
def test_what_a_module_may_not_do_is_refused(polyglot, reports, probe):
    assert tuple(probes(polyglot, reports)[probe]) == PROBES[probe]


def test_an_operators_method_cannot_be_reached_by_a_module(polyglot, reports):
    status, _ = probes(polyglot, reports)["admin method on the SPI socket"]
    assert status in ("PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED")


def test_refused_channels_are_audited(polyglot, reports):
    probes(polyglot, reports)
    records = [json.loads(line) for line in "".join(
        path.read_text(errors="replace") for path in polyglot.state.rglob("audit*") if path.is_file()).splitlines() if line.startswith("{")]
    denied = {record.get("actor") for record in records if record.get("action") == "spi.channel.denied"}
    assert {"probes", "mcp"} <= denied, records[-5:]
    assert any(record.get("action") == "spi.family.denied" and record.get("actor") == "probes" for record in records)


def test_the_secret_of_an_earlier_generation_is_refused(polyglot, reports):
    probes(polyglot, reports)
    (reports / "probes").unlink()
    polyglot.wait_restarted(polyglot.kill("probes"))
    wait_until((reports / "probes").exists, "the report of the new generation")
    assert tuple(probes(polyglot, reports)["old secret"]) == ("UNAUTHENTICATED", "auth.channel.denied")
