"""The operator CLI. Against a double of the core: answers that are rare, hostile or late. Against the real gateway: what an operator
does on the first day."""
import contextlib
import fcntl
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import threading

import pytest
import yaml

from harness import BIN
from harness import gateway as gateways
from harness.admin_double import AdminDouble
from harness.processes import Process, wait_until

OK, REFUSED, DEGRADED, UNREACHABLE, USAGE, ENVIRONMENT = 0, 1, 3, 4, 100, 111
READY = {"version": "1.2.3", "health": "ok", "store_backend": "sqlite", "record_count": 7, "catalog_revision": 3, "event_sequence": 42,
         "processes": [{"id": "supervisor", "state": "ready", "pid": 1, "version": "1.2.3"},
                       {"id": "core", "generation": 1, "state": "ready", "pid": 2, "uptime_ms": 200_000},
                       {"id": "mcp", "generation": 2, "state": "ready", "pid": 3, "uptime_ms": 18_120_000, "restarts": 1,
                        "memory_resident_bytes": 24_536_679, "last_exit": "signal 9 (KILL)", "protocol_family": "mcp"}],
         "listeners": [{"name": "mcp", "address": "127.0.0.1:4444", "module_id": "mcp"}]}

pytestmark = pytest.mark.skipif(not (BIN / "gatehouse").exists(), reason="not built: gatehouse")


class Cli:
    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="ghc"))
        self.run = self.directory / "run"
        self.env = {**os.environ, "GATEHOUSE_RUN": str(self.run), "TERM": "xterm"}
        self.env.pop("GATEHOUSE_CONFIG", None)

    def __call__(self, *arguments, text=None, env=None, encoding="utf-8"):
        merged = {name: value for name, value in {**self.env, **(env or {})}.items() if value is not None}
        return subprocess.run([BIN / "gatehouse", *map(str, arguments)], env=merged, capture_output=True,
                              input=text, timeout=60, check=False, cwd=self.directory, encoding=encoding)

    def file(self, name, text):
        path = self.directory / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path


@pytest.fixture
def cli():
    made = Cli()
    yield made
    shutil.rmtree(made.directory, ignore_errors=True)


@pytest.fixture
def core(cli):
    """A double that answers what a test puts into core.answers."""
    with AdminDouble(cli.run, {"StatusService/GetStatus": lambda _: READY}) as double:
        yield double


# ---- without a core ----

def test_no_core_is_said_with_the_socket_and_a_code(cli):
    out = cli("status")
    assert out.returncode == UNREACHABLE
    assert out.stderr == f"gatehouse: the core cannot be reached at {cli.run}/core/admin.sock; is the gateway running? (rpc.connect.failed)\n"
    assert out.stdout == ""


def test_the_run_directory_comes_from_the_option_the_environment_or_the_configuration(cli):
    cli.file("gatehouse.yaml", "version: 1\nrun_dir: /from/the/file\n")
    assert "/option/core/admin.sock" in cli("status", "--run-dir", "/option").stderr
    assert "/environment/core/admin.sock" in cli("status", env={"GATEHOUSE_RUN": "/environment"}).stderr
    assert "/from/the/file/core/admin.sock" in cli("status", env={"GATEHOUSE_RUN": None}).stderr
    broken = cli("status", env={"GATEHOUSE_RUN": None, "GATEHOUSE_LOG_LEVEL": "zz", "XDG_RUNTIME_DIR": "/x"}).stderr
    assert "config check" in broken and ("/run/gatehouse/" if os.geteuid() == 0 else "/x/gatehouse/") in broken
    assert "too long" in cli("status", "--run-dir", "/" + "x" * 200).stderr


def test_a_socket_that_is_no_core_ends_in_an_error(cli):
    import socket
    path = cli.run / "core"
    path.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path / "admin.sock"))
        listener.listen()

        def garbage():
            for _ in range(3):
                try:
                    peer, _address = listener.accept()
                except OSError:
                    return
                with peer, contextlib.suppress(OSError):  # it may have left already
                    peer.sendall(b"SSH-2.0-OpenSSH\r\n" * 10)
        thread = threading.Thread(target=garbage, daemon=True)
        thread.start()
        out = cli("status", "--timeout", "5s")
        listener.shutdown(socket.SHUT_RDWR)
    assert out.returncode == UNREACHABLE
    assert out.stderr.startswith("gatehouse: ") and out.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["token"], ["status", "--nope"], ["delete", "Tool"], ["--output", "xml", "status"],
                                       ["apply"], ["token", "create"], ["events", "--tail", "many"], ["events", "--tail", "1", "--after", "1"],
                                       ["completion", "tcsh"], ["psg", "query", "--filter", "nothing"], ["module", "upgrade", "mcp"],
                                       ["token", "create", "--user", "a@b", "--ttl", "soon"],
                                       ["token", "create", "--user", "a@b", "--team", "x", "--all-teams"]])
def test_wrong_arguments_are_usage_errors_before_any_core_is_asked(cli, arguments):
    out = cli(*arguments)
    assert out.returncode == USAGE, out
    assert out.stderr.endswith("(argument.invalid)\n") and out.stdout == ""


def test_help_and_version_need_nothing(cli):
    assert "Exit status:" in cli("--help").stdout
    assert "--team" in cli("token", "create", "--help").stdout
    assert cli("help", "token", "create").stdout == cli("token", "create", "-h").stdout
    assert cli("--version").stdout == cli("version").stdout != ""


def test_up_without_a_supervisor_is_an_error_of_the_environment(cli):
    alone = cli.directory / "bin"
    alone.mkdir()
    shutil.copy(BIN / "gatehouse", alone / "gatehouse")
    out = subprocess.run([alone / "gatehouse", "up"], env={**cli.env, "PATH": str(alone)}, capture_output=True, text=True, timeout=60, check=False)
    assert out.returncode == ENVIRONMENT
    assert "gatehouse-supervisor cannot be started" in out.stderr


def test_up_becomes_the_supervisor_beside_it(cli):
    alone = cli.directory / "bin"
    alone.mkdir()
    shutil.copy(BIN / "gatehouse", alone / "gatehouse")
    fake = alone / "gatehouse-supervisor"
    fake.write_text('#!/bin/sh\necho "$$ $GATEHOUSE_RUN $*"\nexit 7\n')
    fake.chmod(0o755)
    child = subprocess.Popen([alone / "gatehouse", "up", "--run-dir", "/r", "--config", "c.yaml", "--set", "a=1", "-s", "b=2"], env=cli.env,
                             stdout=subprocess.PIPE, text=True)
    assert child.communicate(timeout=60)[0] == f"{child.pid} /r --config c.yaml --set a=1 --set b=2\n"
    assert child.returncode == 7


# ---- configuration ----

def test_config_check_says_everything_that_is_wrong(cli):
    path = cli.file("bad.yaml", "version: 1\nmodules:\n  - id: mcp\n    restrat: never\n  - id: REST\nlimits:\n  body_bytes: many\n")
    out = cli("config", "check", "--config", path)
    assert out.returncode == USAGE
    lines = out.stderr.splitlines()
    assert any(f"{path}:4:5: modules[0].restrat" in line and 'did you mean "restart"' in line for line in lines), lines
    assert any(":5:9: modules[1].id" in line for line in lines), lines
    assert any(":7:15: limits.body_bytes" in line and "[config.type]" in line for line in lines), lines


def test_config_show_is_a_configuration(cli):
    shown = cli("config", "show", "--config", gateways.QUICKSTART / "gatehouse.yaml", "--set", "log.level=debug")
    assert shown.returncode == OK
    data = yaml.safe_load(shown.stdout)
    assert data["log"]["level"] == "debug" and data["modules"][0]["restart"] == "always"
    assert cli("config", "check", "--config", cli.file("shown.yaml", shown.stdout)).returncode == OK
    as_json = cli("config", "show", "--config", gateways.QUICKSTART / "gatehouse.yaml", "--output", "json")
    assert json.loads(as_json.stdout)["listeners"][0]["port"] == 4444


def test_a_broken_configuration_does_not_hide_a_running_gateway(cli, core):
    cli.file("gatehouse.yaml", "nonsense: [\n")
    out = cli("status")
    assert out.returncode == OK and "mcp" in out.stdout and out.stderr == ""


# ---- answers ----

def test_status_is_a_table_for_people_and_json_for_programs(cli, core):
    out = cli("status")
    assert out.returncode == OK and "\033" not in out.stdout
    mcp = next(line for line in out.stdout.splitlines() if line.startswith("mcp ") and "5h02m" in line)
    assert mcp.split()[:7] == ["mcp", "2", "-", "ready", "5h02m", "1", "23.4M"] and mcp.endswith("signal 9 (KILL)")
    assert "127.0.0.1:4444" in out.stdout and "store: sqlite, 7 records" in out.stdout
    data = json.loads(cli("status", "--output", "json").stdout)
    assert [process["id"] for process in data["processes"]] == ["supervisor", "core", "mcp"]
    assert data["listeners"] == [{"name": "mcp", "address": "127.0.0.1:4444", "moduleId": "mcp"}]
    assert yaml.safe_load(cli("status", "-o", "yaml").stdout) == data


def test_status_tells_degraded_by_its_exit_status(cli, core):
    core.answers["StatusService/GetStatus"] = lambda _: {**READY, "health": "degraded"}
    out = cli("status", "--output", "json")
    assert out.returncode == DEGRADED and json.loads(out.stdout)["health"] == "degraded"


def test_a_core_that_says_evil_things_cannot_drive_the_terminal(cli, core):
    evil = "x\033]0;owned\007\nmcp  1  ready \u202e"
    core.answers["StatusService/GetStatus"] = lambda _: {**READY, "processes": [{"id": evil, "state": evil, "reason": evil}]}
    out = cli("status").stdout
    assert "\033" not in out and "\007" not in out and "\u202e" not in out and "\nmcp  1" not in out


def test_colours_and_cut_lines_are_for_terminals_only(cli, core):
    long = {**READY, "processes": [{"id": "core", "state": "ready"}, {"id": "mcp", "state": "failed", "reason": "r" * 500}]}
    core.answers["StatusService/GetStatus"] = lambda _: long
    assert "r" * 500 in cli("status").stdout
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 90, 0, 0))
    process = subprocess.Popen([BIN / "gatehouse", "status"], env=cli.env, stdout=child, stderr=subprocess.DEVNULL)
    os.close(child)
    shown = b""
    while True:
        try:
            piece = os.read(parent, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(parent)
    assert process.wait(60) == OK
    assert b"\033[32mready\033[0m" in shown and b"\033[31mfailed\033[0m" in shown
    plain = re.sub(r"\033\[[0-9]+m", "", shown.decode())
    assert max(map(len, plain.splitlines())) == 90 and "r\u2026" in plain


def test_apply_keeps_types_and_places(cli, core):
    got = []

    def apply(request):
        got.append([json.loads(document.document_json) for document in request.documents])
        return {"applied": False, "outcomes": [
            {"kind": "Tool", "name": "a", "action": 1, "document_index": 0},
            {"kind": "Tool", "name": "b", "action": 5, "document_index": 1,
             "error": {"code": "catalog.record.invalid", "message": "spec.rest.url is missing"}}]}
    core.answers["CatalogAdminService/Apply"] = apply
    path = cli.file("two.yaml", "kind: Tool\nmetadata: {name: a}\nspec: {n: 1, t: '1', f: 1.0, b: yes, z: ~}\n---\n\nkind: Tool\nmetadata: {name: b}\n")
    out = cli("apply", "-f", path)
    assert out.returncode == REFUSED
    assert got[0][0]["spec"] == {"n": 1, "t": "1", "f": 1.0, "b": "yes", "z": None}
    assert out.stderr == f"gatehouse: {path}:6: Tool b: spec.rest.url is missing (catalog.record.invalid)\n"
    assert "would be created Tool a" in out.stdout and "1 would be created, 1 refused, nothing was changed" in out.stdout


def test_apply_reads_directories_and_standard_input(cli, core):
    core.answers["CatalogAdminService/Apply"] = lambda request: {"applied": not request.dry_run, "revision": 9, "outcomes": [
        {"kind": "Team", "name": json.loads(d.document_json)["metadata"]["name"], "action": 2, "changed_fields": ["metadata.title"]} for d in request.documents]}
    folder = cli.directory / "docs"
    folder.mkdir()
    (folder / "2.yaml").write_text("kind: Team\nmetadata: {name: two}\n")
    (folder / "1.json").write_text('{"kind": "Team", "metadata": {"name": "one"}}')
    out = cli("apply", "-f", folder, "-f", "-", text="kind: Team\nmetadata: {name: three}\n")
    assert out.returncode == OK
    assert out.stdout.splitlines() == ["updated   Team one: metadata.title", "updated   Team two: metadata.title",
                                       "updated   Team three: metadata.title", "3 updated, revision 9"]
    dry = cli("apply", "-f", folder, "--dry-run", "--prune")
    assert dry.stdout.splitlines() == ["would be updated Team one: metadata.title", "would be updated Team two: metadata.title",
                                       "2 would be updated, nothing was changed (dry run)"]
    assert core.requests[-1][1].dry_run and core.requests[-1][1].prune


@pytest.mark.parametrize("text, message", [
    (b"a: 1\na: 2\n", ':2:1: the key "a" appears twice (config.syntax)'),
    (b"a: \xff\xfe\n", ":1:4: invalid leading UTF-8 octet (config.syntax)"),
    (b"", "there is no document in "),
    (b"a: [" * 5000, "nested too deeply"),
    (b"\n".join(b"a%d: &a%d [%s]" % (i, i, b",".join([b"*a%d" % (i - 1)] * 9) if i else b"x") for i in range(12)), "expands beyond 8 MiB"),
    (b"#" * (9 << 20), "larger than 8 MiB")], ids=["duplicate key", "not UTF-8", "empty", "deep", "alias bomb", "huge"])
def test_hostile_yaml_is_refused_before_the_core_sees_it(cli, core, text, message):
    out = cli("apply", "-f", cli.file("f.yaml", text))
    assert out.returncode == REFUSED and message in out.stderr and out.stderr.count("\n") == 1
    assert not core.requests


def test_what_is_not_built_is_said_as_the_core_says_it(cli, core):
    core.answers["ModuleAdminService/UpgradeModule"] = lambda _: core.error(8, "unsupported", "Upgrades are not built yet.")
    out = cli("module", "upgrade", "mcp", "--to", "2")
    assert (out.returncode, out.stderr) == (REFUSED, "gatehouse: Upgrades are not built yet. (unsupported)\n")


def test_a_token_is_shown_once_and_alone_on_stdout(cli, core):
    core.answers["TokenAdminService/CreateToken"] = lambda request: {
        "token": "gh_secret", "info": {"token_id": "t1", "user_email": request.user_email, "teams": {"team_ids": request.teams.team_ids}}}
    out = cli("token", "create", "--user", "a@b", "--team", "x", "--team", "y", "--ttl", "8h", "--server", "s", "--permission", "tools.read", "--ip", "10.0.0.0/8")
    assert out.stdout == "gh_secret\n" and "gh_secret" not in out.stderr and "teams x,y" in out.stderr
    request = core.requests[-1][1]
    assert request.ttl_seconds == 8 * 3600 and not request.teams.is_null
    assert (request.scope.server_id, list(request.scope.permissions), list(request.scope.ip_restrictions)) == ("s", ["tools.read"], ["10.0.0.0/8"])
    cli("token", "create", "--user", "a@b", "--all-teams")
    assert core.requests[-1][1].teams.is_null
    cli("token", "create", "--user", "a@b")
    assert core.requests[-1][1].HasField("teams") and not core.requests[-1][1].teams.is_null and not core.requests[-1][1].teams.team_ids
    assert json.loads(cli("token", "create", "--user", "a@b", "-o", "json").stdout)["token"] == "gh_secret"


def test_export_can_be_applied_again(cli, core):
    documents = [{"kind": "Tool", "metadata": {"name": "t"}, "spec": {"text": "yes", "more": "a\nb\n", "n": [1, 1.5, None, True, "1"]}}, {"kind": "Team", "metadata": {"name": "\u00e9"}}]
    core.answers["CatalogAdminService/Export"] = lambda _: iter([{"document_json": json.dumps(d).encode()} for d in documents])
    got = []
    core.answers["CatalogAdminService/Apply"] = lambda request: got.extend(json.loads(d.document_json) for d in request.documents) or {"applied": True}
    exported = cli("export", "Tool", "Team")
    assert list(core.requests[-1][1].kinds) == ["Tool", "Team"]
    assert list(yaml.safe_load_all(exported.stdout)) == documents
    assert cli("apply", "-f", "-", text=exported.stdout).returncode == OK
    assert got == documents
    assert [json.loads(line) for line in cli("export", "-o", "json").stdout.splitlines()] == documents


def test_a_core_that_does_not_answer_in_time_is_unreachable(cli, core):
    release = threading.Event()
    core.answers["StatusService/GetMetrics"] = lambda _: release.wait(60) and {} or {}
    out = cli("metrics", "--timeout", "300ms")
    release.set()
    assert out.returncode == UNREACHABLE and out.stderr.endswith("did not answer within 300 ms; see --timeout (deadline.exceeded)\n")


# ---- events ----

def event(sequence, **more):
    body = {"event_id": f"e{sequence}", "event_family": "runtime_execution", "event_type": "execution_started",
            "timestamp": "2026-11-21T09:30:00.000001Z", "executor_kind": "tool", "status": "running", "payload": {"record_name": "world_time", "deep": {}}, **more}
    return {"sequence": sequence, "event_json": json.dumps(body).encode()}


def test_events_are_lines_and_json_is_the_raw_events(cli, core):
    core.answers["EventAdminService/ReadEvents"] = lambda _: iter([event(41), event(42, payload={"x": "\033[31m"})])
    lines = cli("events", "--family", "runtime_execution", "--trace", "t").stdout.splitlines()
    request = core.requests[-1][1]
    assert (request.tail, request.limit, list(request.families), request.trace_id, request.follow) == (True, 20, ["runtime_execution"], "t", False)
    assert lines[0].split() == ["2026-11-21T09:30:00.000001Z", "41", "runtime_execution", "execution_started", "tool", "running", "record_name=world_time"]
    assert "\033" not in lines[1]
    raw = cli("events", "--after", "40", "--output", "json").stdout.splitlines()
    assert [json.loads(line)["event_id"] for line in raw] == ["e41", "e42"] and core.requests[-1][1].after_sequence == 40


def test_events_follow_survives_a_restart_of_the_core(cli, core):
    sent = threading.Event()
    release = threading.Event()

    def read(request):
        if request.after_sequence == 0:
            yield event(43)
            sent.set()
            release.wait(60)
        else:
            yield event(request.after_sequence + 1)
            release.wait(60)
    core.answers["EventAdminService/ReadEvents"] = read
    follower = Process("events", [BIN / "gatehouse", "events", "--follow", "--output", "json"], cli.directory, env=cli.env)
    try:
        wait_until(lambda: '"e43"' in follower.output(), "the first event")
        core.answers["StatusService/GetStatus"] = lambda _: {**READY, "event_sequence": 44}
        core.stop()
        wait_until(lambda: "the core is gone" in follower.errors(), "the loss to be told")
        core.start()
        wait_until(lambda: follower.output().count("\n") >= 2, "the event after the restart")
        assert '"e44"' in follower.output() and "going on after event 43" in follower.errors()
        assert follower.output().count("\n") == 2
    finally:
        release.set()
        follower.child.send_signal(signal.SIGTERM)
        follower.child.wait(60)


def test_a_reader_that_leaves_ends_the_command(cli, core):
    core.answers["EventAdminService/ReadEvents"] = lambda _: (event(i) for i in range(1, 200_000))
    child = subprocess.Popen([BIN / "gatehouse", "events", "--after", "0"], env=cli.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child.stdout.readline()
    child.stdout.close()
    assert child.wait(60) == ENVIRONMENT and child.stderr.read() == b""
    child.stderr.close()


# ---- the real gateway ----

def test_the_first_day_of_an_operator(gateway):
    assert gateway.ctl("status").returncode == OK
    assert "world_time" in gateway.ctl("export", "Tool").stdout
    again = gateway.ctl("apply", "-f", "-", stdin=gateway.ctl("export").stdout).stdout
    assert "unchanged" in again and "updated" not in again
    unknown = gateway.ctl("export", "Tool", "Nope", check=False)
    assert unknown.returncode == REFUSED and not unknown.stdout and 'The kind "Nope" is not known. (argument.invalid)' in unknown.stderr
    created = json.loads(gateway.ctl("token", "create", "--user", gateways.GUEST, "--name", "cli", "-o", "json").stdout)
    identifier = created["info"]["tokenId"]
    listed = json.loads(gateway.ctl("token", "list", "-o", "json").stdout)["tokens"]
    assert any(token["tokenId"] == identifier for token in listed)
    assert created["token"] not in json.dumps(listed)
    gateway.ctl("token", "revoke", identifier)
    assert gateway.ctl("token", "revoke", "no-such-token", check=False).returncode == REFUSED
    assert "gatehouse_" in gateway.ctl("metrics").stdout
    assert "mcp" in gateway.ctl("module", "list").stdout
    assert "ready" in gateway.ctl("module", "describe", "mcp").stdout
    assert "module.unknown" in gateway.ctl("module", "describe", "nobody", check=False).stderr
    assert "no version before" in gateway.ctl("module", "rollback", "mcp", check=False).stderr
    assert len(json.loads(gateway.ctl("psg", "hash", "-o", "json").stdout)["stateHash"]) == 64
    events = [json.loads(line) for line in gateway.ctl("events", "--tail", "5", "-o", "json").stdout.splitlines()]
    assert events and all(found["event_family"] for found in events)
