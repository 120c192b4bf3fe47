"""The store's disk full, locked, damaged, gone: a clear error, nothing acknowledged lost, and no module dies with it (LIF-12)."""
import contextlib
import ctypes
import os
import shutil
import sqlite3
import subprocess

import pytest

from harness import BIN, gateway as gateways
from harness.mcp import ModernMcp
from harness.processes import wait_until
from test_lifecycle import kill_until_quarantined

TEAM = "kind: Team\nmetadata: {{name: {name}, description: {text}}}\nspec: {{}}\n"


def apply_team(gateway, name, text="x"):
    return gateway.apply(TEAM.format(name=name, text=text), check=False)


def teams(gateway):
    out = gateway.ctl("export", "--output", "json", check=False)
    return out.stdout if out.returncode == 0 else ""


def serves(gateway, token):
    with ModernMcp(gateway.mcp_url, token) as mcp:
        reply = mcp.call("convert_units", {"value": 1, "from_unit": "km", "to_unit": "m"})
        return "result" in reply.answer and reply.result["structuredContent"]["result"] == 1000


# ---- locked ----

def test_a_second_core_on_the_same_state_is_refused(own_gateway, tmp_path):
    """Another run directory, the same store: exit 111, a stable code, and the first one does not notice."""
    before = own_gateway.processes()["core"]
    out = subprocess.run([BIN / "gatehouse-core", "--config", own_gateway.config_path],
                         env={**own_gateway.env, "GATEHOUSE_RUN": str(tmp_path / "run")}, capture_output=True, text=True, timeout=30,
                         check=False)
    assert out.returncode == 111, (out.returncode, out.stdout, out.stderr)
    assert "store.locked" in out.stdout + out.stderr
    assert own_gateway.processes()["core"]["pid"] == before["pid"]
    assert apply_team(own_gateway, "after-locked").returncode == 0


def test_a_database_that_somebody_else_locks(start_quickstart):
    """Writes are refused with a clear error and nothing waits for ever; the status says so; all goes on when the lock is gone."""
    with start_quickstart() as gateway:
        token, before = gateway.token(gateways.GUEST), gateway.processes()
        assert apply_team(gateway, "before-lock").returncode == 0
        with contextlib.closing(sqlite3.connect(database(gateway), isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            out = apply_team(gateway, "while-locked")
            assert out.returncode == 1 and "store.locked" in out.stderr, out
            assert serves(gateway, token), "reading stops when writing must"
            status = wait_until(lambda: (now := gateway.status()) and now.get("storeError") and now, "the status to tell of it", 30)
            assert status["storeError"] == "store.locked" and int(status["storeFailingMs"]) > 0 and status["health"] == "degraded"
            shown = gateway.ctl("status", check=False)
            assert shown.returncode == 3 and "takes no writes for" in shown.stdout and "(store.locked)" in shown.stdout
            metrics = gateway.ctl("metrics").stdout
            assert "gatehouse_store_failing 1\n" in metrics and "gatehouse_store_commits_failed 0\n" not in metrics
            db.execute("ROLLBACK")
        wait_until(lambda: (now := gateway.status()) and "storeError" not in now, "the store to recover without a write", 30)
        assert gateway.status()["health"] == "ok" and "gatehouse_store_failing 0\n" in gateway.ctl("metrics").stdout
        assert apply_team(gateway, "after-lock").returncode == 0
        gateway.wait_restarted(gateway.kill("core"), 60)
        there = teams(gateway)
        assert "before-lock" in there and "after-lock" in there and "while-locked" not in there
        now = gateway.processes()
        assert {name: now[name]["pid"] for name in ("mcp", "rest")} == {name: before[name]["pid"] for name in ("mcp", "rest")}


# ---- damaged ----

def flip(path, offsets):
    with open(path, "r+b") as file:
        for offset in offsets:
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ 0xFF]))


def database(gateway):
    return gateway.state / "gatehouse.db"


def damage_header(path):
    flip(path, range(0, 16))


def damage_pages(path):
    size = path.stat().st_size
    flip(path, [offset + 20 for offset in range(4096, size, 4096)])


def damage_row(path):
    """A value that SQLite itself finds nothing wrong with: the store's own checksum must."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE kv SET value = value || x'00'")
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def damage_empty(path):
    path.write_bytes(b"")


def damage_absent(path):
    path.unlink()


def exchange(one, other):
    """Two folders change places at once: the core that is tried again and again never sees half of either."""
    at_cwd, rename_exchange = -100, 2
    assert ctypes.CDLL(None, use_errno=True).renameat2(at_cwd, bytes(one), at_cwd, bytes(other), rename_exchange) == 0, ctypes.get_errno()


@pytest.mark.parametrize("damage", [damage_header, damage_pages, damage_row, damage_empty, damage_absent])
def test_a_damaged_store_is_never_served_nor_overwritten(start_quickstart, damage):
    with start_quickstart() as gateway:
        assert apply_team(gateway, "kept").returncode == 0
        gateway.stop()
        path = database(gateway)
        good = gateway.directory / "good"
        shutil.copytree(gateway.state, good)
        for extra in ("-wal", "-shm"):
            path.with_name(path.name + extra).unlink(missing_ok=True)
        damage(path)
        broken = path.read_bytes() if path.exists() else None
        gateway.start(wait=False)
        wait_until(lambda: gateway.log().count("store.corrupt") >= 2, f"the core to be tried again after {damage.__name__}", 30)
        assert gateway.process.running()
        out = gateway.ctl("status", check=False)
        assert out.returncode == 4 and "cannot be reached" in out.stderr.lower() + out.stdout.lower(), out
        assert (path.read_bytes() if path.exists() else None) == broken, "the evidence was changed"
        # The operator puts the copy back: everything that was acknowledged is there.
        exchange(good, gateway.state)
        gateway.wait_ready(60)
        assert "kept" in teams(gateway)


# ---- full ----

@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 MB, by tmpfs; needs root."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("not root: no small disk can be mounted")
    out = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs", path], capture_output=True, text=True, check=False)
    if out.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {out.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def write_until_refused(gateway):
    """Applies teams until one is refused: (names acknowledged, the refusal)."""
    acknowledged = []
    for number in range(2000):
        name = f"team-{number:04}"
        out = gateway.apply("---\n".join(TEAM.format(name=f"{name}-{part}", text="y" * 900) for part in range(40)), check=False)
        if out.returncode != 0:
            return acknowledged, out
        acknowledged.append(name)
    raise AssertionError("the disk never got full")


def full_disk_story(gateway, make_room):
    token = gateway.token(gateways.GUEST)
    acknowledged, refusal = write_until_refused(gateway)
    assert acknowledged and "store.full" in refusal.stderr, refusal
    assert serves(gateway, token), "reading stops when writing must"
    before = gateway.processes()
    make_room()
    wait_until(lambda: apply_team(gateway, "after-room").returncode == 0, "writes to go on when there is room", 30, pause_s=0.2)
    now = gateway.processes()
    assert {name: now[name]["pid"] for name in ("mcp", "rest")} == {name: before[name]["pid"] for name in ("mcp", "rest")}
    gateway.wait_restarted(gateway.kill("core"), 60)
    gateway.wait_ready(60)
    there = teams(gateway)
    missing = [name for name in acknowledged if f"{name}-39" not in there]
    assert not missing and "after-room" in there, f"acknowledged and lost: {missing}"
    assert serves(gateway, token)


def test_a_full_disk(start_quickstart, small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * 1024 * 1024)
    (small_disk / "state").mkdir()
    with start_quickstart(env={"GATEHOUSE_STATE": str(small_disk / "state")}) as gateway:
        full_disk_story(gateway, ballast.unlink)


def test_lif_8_a_release_that_cannot_be_written_down_is_refused(start_quickstart):
    """An operator who was told that a module is released must not find it quarantined after the next death of the core. Nothing can be
    written, however small, while somebody else holds the database; on a full disk a release may find room where other writes do not."""
    with start_quickstart() as gateway:
        kill_until_quarantined(gateway, "rest")
        with contextlib.closing(sqlite3.connect(database(gateway), isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            refusal = gateway.ctl("module", "release", "rest", check=False)
        assert refusal.returncode != 0 and "store.locked" in refusal.stderr, refusal
        assert gateway.processes()["rest"]["state"] == "quarantined"
        wait_until(lambda: gateway.ctl("module", "release", "rest", check=False).returncode == 0, "the release", 30, pause_s=0.2)
        gateway.wait_ready()
        gateway.wait_restarted(gateway.kill("core"), 60)
        gateway.wait_ready(60)


def test_spi_15_a_configuration_that_is_not_on_disk_is_not_promoted(start_quickstart):
    """The next core could not go on with it. Nothing can be written, however small, while somebody else holds the database."""
    configure = ("module", "configure", "mcp", "--probation", "300ms", "--file", "-")
    with start_quickstart() as gateway:
        def newest():
            versions = gateway.describe("mcp")["versions"]
            return not versions.get("phase") and versions.get("changes", [None])[0]
        before = gateway.processes()["mcp"]["pid"]
        with contextlib.closing(sqlite3.connect(database(gateway), isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            gateway.ctl(*configure, stdin="pageSize: 7")
            change = wait_until(newest, "the change to be decided", 40, pause_s=0.1)
        assert change["verdict"] == "rolled back" and "the store did not take its configuration" in change["cause"], change
        assert gateway.processes()["mcp"]["pid"] == before
        wait_until(lambda: apply_team(gateway, "after-lock").returncode == 0, "writes to go on", 30, pause_s=0.2)
        gateway.ctl(*configure, stdin="pageSize: 7")
        wait_until(lambda: (now := newest()) and now["verdict"] == "promoted", "the configuration to be promoted", 40, pause_s=0.1)
        assert apply_team(gateway, "behind-it").returncode == 0  # what was written before an acknowledged write is on disk with it
        gateway.wait_restarted(gateway.kill("core"), 60)
        gateway.wait_ready(60)
        assert newest()["verdict"] == "promoted" and gateway.processes()["mcp"]["pid"] != before


# ---- gone ----

def test_the_state_directory_disappears(own_gateway):
    """Nobody may think that a write into a file without a name is kept: it is refused, or the core says that it is damaged."""
    token = own_gateway.token(gateways.GUEST)
    own_gateway.state.rename(own_gateway.directory / "aside")  # all at once, whatever is made or removed in it meanwhile
    shutil.rmtree(own_gateway.directory / "aside")
    assert serves(own_gateway, token)
    before = own_gateway.processes()
    out = apply_team(own_gateway, "into-nothing")
    assert out.returncode != 0 or "into-nothing" in teams(own_gateway)
    now = own_gateway.processes()
    assert {name: now[name]["pid"] for name in ("mcp", "rest") if name in now} == {name: before[name]["pid"] for name in ("mcp", "rest") if name in now}
    assert own_gateway.process.running()
