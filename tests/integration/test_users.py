"""Every process as a user of its own (LIF-14, TRN-4): sockets belong to who may use them, and nobody else gets in."""
import os
import pwd
import stat
import subprocess

import pytest

from harness import gateway as gateways
from harness.mcp import ModernMcp

ARGUMENTS = {"value": 5, "from_unit": "km", "to_unit": "m"}


@pytest.fixture(params=["", "daemon"], ids=["core-is-root", "core-is-daemon"])
def users(request, worldclock, notes):
    """(gateway, name of the core's user)."""
    if os.geteuid() != 0:
        pytest.skip("only root can start processes as other users")
    if gateways.missing():
        pytest.skip(gateways.missing())
    config = gateways.quickstart_config()
    for module, user in zip(config["modules"], ("nobody", "games")):
        module["user"] = user
    if request.param:
        config["core"] = {**config.get("core", {}), "user": request.param}
    with gateways.Gateway(config=config, passable=True) as started:
        started.apply(gateways.quickstart_catalog(worldclock.port, notes.port))
        yield started, request.param or "root"


def test_a_gateway_of_many_users_serves_and_keeps_others_out(users):
    gateway, core_user = users
    processes = gateway.processes()
    owners = {"core": core_user, gateway.config["modules"][0]["id"]: "nobody", gateway.config["modules"][1]["id"]: "games"}
    for name, user in owners.items():
        assert os.stat(f"/proc/{processes[name]['pid']}").st_uid == pwd.getpwnam(user).pw_uid or \
            f"Uid:\t{pwd.getpwnam(user).pw_uid}" in open(f"/proc/{processes[name]['pid']}/status", encoding="ascii").read()
    with ModernMcp(gateway.mcp_url, gateway.token(gateways.GUEST, "--team", "explorers")) as mcp:
        assert mcp.call("convert_units", ARGUMENTS).result["structuredContent"]["result"] == 5000
    for module in gateway.config["modules"]:
        path = gateway.run / "core" / "spi" / f"{module['id']}.sock"
        folder = path.resolve().parent.stat()
        assert (folder.st_uid, folder.st_gid, stat.S_IMODE(folder.st_mode)) == \
            (pwd.getpwnam(core_user).pw_uid, pwd.getpwnam(module["user"]).pw_gid, 0o710)
        assert not reaches(path, "mail"), "a stranger can use an SPI socket"
        assert knocks(path, "mail") == "PermissionError", "a stranger can even knock at an SPI socket"
    assert gateway.wait_restarted(gateway.kill("core"))
    gateway.wait_ready()
    assert "a socket cannot be given away" not in gateway.log() and '"cannot listen"' not in gateway.log()  # expected of a core of its own user


def knocks(path, user):
    """What a connection of that user ends with: the name of the error, or "connected"."""
    script = ("import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(3)\n"
              "try:\n s.connect(sys.argv[1]); print('connected')\nexcept OSError as error:\n print(type(error).__name__)")
    return subprocess.run(["/usr/bin/python3", "-c", script, str(path)], user=user, group=user, extra_groups=[], check=True,
                          capture_output=True, text=True, timeout=20).stdout.strip()


def reaches(path, user):
    """Whether a process of that user can connect and is not hung up on at once."""
    script = ("import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(3); s.connect(sys.argv[1]);"
              "sys.exit(0 if s.recv(1) else 9)")
    return subprocess.run(["/usr/bin/python3", "-c", script, str(path)], user=user, group=user, extra_groups=[], check=False,
                          stderr=subprocess.DEVNULL, timeout=20).returncode == 0
