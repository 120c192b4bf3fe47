"""Both gRPC sides of ours against Go's gRPC: Go's client at our servers, our clients at Go's server (TRN-1).

The Go program is tests/interop/go, built here into build/tools/go. Skips where there is no Go of 1.21 or newer, or where its modules are
out of reach; a program that does not build, or modules whose checksums differ, is a failure.
"""
import os
import re
import shutil
import subprocess

import pytest

from harness import BUILD, ROOT, TOOLS

SOURCES = ROOT / "tests" / "interop" / "go"
GO = TOOLS / "go"
COMMON = ["unary", "too_large", "unknown_method", "deadline", "cancellation", "server_stream", "cancelled_stream", "bidi", "bidi_large",
          "reader_that_waits", "many_at_once", "health_check", "health_watch"]
CHECKS = {"slim": [*COMMON, "status_details", "gzip_is_refused", "metadata"],
          "core": [*COMMON, "status_details", "gzip_is_inflated", "metadata", "reflection", "reflection_alpha"]}


def go(*arguments, timeout):
    env = {**os.environ, "GOFLAGS": "-mod=mod -modcacherw", "GOPATH": str(GO), "GOMODCACHE": str(GO / "mod"), "GOCACHE": str(GO / "cache"),
           "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0"}
    return subprocess.run(["go", *arguments], cwd=SOURCES, env=env, capture_output=True, text=True, timeout=timeout, check=False,
                          stdin=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def interop():
    """The Go program."""
    version = re.search(r"go(\d+)\.(\d+)", go("version", timeout=20).stdout) if shutil.which("go") else None
    if not version or (int(version[1]), int(version[2])) < (1, 21):
        pytest.skip("no Go of version 1.21 or newer here")
    try:
        fetched = go("mod", "download", timeout=60)
    except subprocess.TimeoutExpired:
        pytest.skip("Go's modules did not arrive within a minute")
    if fetched.returncode != 0:
        assert "checksum mismatch" not in fetched.stderr, fetched.stderr
        pytest.skip("Go's modules are out of reach")
    built = go("build", "-o", str(GO / "interop"), ".", timeout=600)
    assert built.returncode == 0, built.stderr
    return GO / "interop"


@pytest.fixture(scope="session")
def programs():
    built = subprocess.run(["ninja", "-C", BUILD, "rpc_interop_peer", "core_rpc_interop"], capture_output=True, text=True, timeout=600,
                           check=False)
    assert built.returncode == 0, built.stdout
    return {"slim": BUILD / "tests" / "rpc_interop_peer", "core": BUILD / "tests" / "core_rpc_interop"}


@pytest.fixture(scope="session")
def servers(interop, programs, tmp_path_factory):
    """Our two servers: side → socket."""
    directory = tmp_path_factory.mktemp("interop")
    commands = {"slim": [programs["slim"], "server", directory / "slim.sock"],
                "core": [programs["core"], "serve", directory / "core.sock", BUILD / "core" / "rpc" / "interop.desc"]}
    children = {side: subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for side, command in commands.items()}
    try:
        for child in children.values():
            assert child.stdout.readline() == b"ready\n"
        yield {side: directory / f"{side}.sock" for side in children}
        children["core"].terminate()
        children["slim"].stdin.close()
        assert [child.wait(20) for child in children.values()] == [0, 0]
    finally:
        for child in children.values():
            child.kill()
            child.wait()
            child.stdout.close()


@pytest.mark.timeout(900)  # the first test builds
@pytest.mark.parametrize("side", CHECKS)
def test_every_check_is_listed_here(interop, side):
    listed = subprocess.run([interop, "checks", side], capture_output=True, text=True, timeout=20, check=True).stdout.split()
    assert listed == CHECKS[side]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("side, check", [(side, check) for side, checks in CHECKS.items() for check in checks])
def test_go_calls_us(interop, servers, side, check):
    done = subprocess.run([interop, "check", side, servers[side], check], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(900)
@pytest.mark.parametrize("side, command", [("slim", "client"), ("core", "call")])
def test_we_call_go(interop, programs, side, command, tmp_path):
    path = tmp_path / "go.sock"
    with subprocess.Popen([interop, "serve", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout.readline() == b"ready\n"
            done = subprocess.run([programs[side], command, path], capture_output=True, text=True, timeout=60, check=False,
                                  env={**os.environ, "INTEROP_SERVER_ASKS_FIRST": "1"})
            assert done.returncode == 0, done.stdout + done.stderr
            server.stdin.close()
            assert server.wait(20) == 0
        finally:
            server.kill()
