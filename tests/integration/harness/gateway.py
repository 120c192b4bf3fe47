"""The gateway itself: the real supervisor, core and modules, with directories and ports of their own."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import yaml

from . import BIN, QUICKSTART
from .processes import Process, wait_until
from .sanitizers import reports

GUEST = "guest@example.com"
ADMIN = "admin@example.com"


def missing():
    """Why the gateway cannot be started here, or None."""
    absent = [name for name in ("gatehouse", "gatehouse-supervisor", "gatehouse-core", "gatehouse-mcp", "gatehouse-rest")
              if not (BIN / name).exists()]
    return f"not built: {', '.join(absent)}" if absent else None


def quickstart_config(**of_modules):
    """The quick start's gatehouse.yaml as data, with every listener on a free port. of_modules: {module id: more keys of it}."""
    config = yaml.safe_load((QUICKSTART / "gatehouse.yaml").read_text())
    for listener in config["listeners"]:
        listener["port"] = 0
    for module in config["modules"]:
        module.update(of_modules.get(module["id"], {}))
    return config


def quickstart_catalog(worldclock_port, notes_port):
    """The text of the quick start's catalog.yaml, with its upstreams where the test runs them."""
    text = (QUICKSTART / "catalog.yaml").read_text()
    for port, actual in (("4480", worldclock_port), ("4481", notes_port)):
        assert f"127.0.0.1:{port}" in text
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{actual}")
    return text


class Gateway:
    """One running gateway. Paths are short: a Unix socket's may have 107 bytes."""

    def __init__(self, config=None, env=None, wait=True, passable=False, under=()):
        """passable: other users may pass through the directory (not look into it). under: words before the command, such as strace's."""
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="gh"))
        self.directory.chmod(0o711 if passable else 0o700)
        self.config_path = self.directory / "gatehouse.yaml"
        self.run, self.state = self.directory / "run", self.directory / "state"
        self.config = config or quickstart_config()
        self.config_path.write_text(yaml.safe_dump(self.config, sort_keys=False))
        self.env = {**os.environ, "GATEHOUSE_RUN": str(self.run), "GATEHOUSE_STATE": str(self.state), **(env or {})}
        self.process, self.under = None, list(under)
        try:
            self.start(wait)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def start(self, wait=True):
        """Starts the stack; with wait, until every enabled module is ready."""
        self.process = Process("gateway", [*self.under, BIN / "gatehouse", "up", "--config", self.config_path], self.directory, env=self.env)
        if wait:
            self.wait_ready()

    def log(self):
        return self.process.errors() + self.process.output() if self.process else ""

    def ctl(self, *arguments, check=True, stdin=None):
        """Runs the operator CLI: its CompletedProcess."""
        out = subprocess.run([BIN / "gatehouse", *map(str, arguments)], env=self.env, capture_output=True, text=True, timeout=60,
                             check=False, input=stdin)
        assert not check or out.returncode == 0, (arguments, out.returncode, out.stdout, out.stderr, self.log()[-4000:])
        return out

    def status(self):
        """`gatehouse status --output json` as data (also while something is not ready), or None while nobody answers."""
        out = self.ctl("status", "--output", "json", check=False)
        try:
            return json.loads(out.stdout) if out.returncode in (0, 3) else None
        except ValueError:
            return None

    def processes(self):
        """{id: its status} of every process of the gateway."""
        return {process["id"]: process for process in (self.status() or {}).get("processes", [])}

    def describe(self, module):
        """`gatehouse module describe --output json` as data."""
        return json.loads(self.ctl("module", "describe", module, "--output", "json").stdout)

    def wait_ready(self, timeout_s=60):
        wanted = {module["id"] for module in self.config["modules"] if module.get("enabled", True)}

        def ready():
            assert self.process.running(), f"the gateway ended:\n{self.log()[-8000:]}"
            states = {name: process.get("state") for name, process in self.processes().items()}
            return all(states.get(name) == "ready" for name in wanted)
        try:
            wait_until(ready, "every module to be ready", timeout_s, pause_s=0.05)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.status()}\n{self.log()[-8000:]}") from None

    def listener(self, name):
        """(host, port) of a public listener."""
        found = next(item for item in wait_until(self.status, "the status")["listeners"] if item["name"] == name)
        host, _, port = found["address"].rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def mcp_url(self):
        host, port = self.listener("mcp")
        return f"http://{host}:{port}/mcp"

    def apply(self, text, *arguments, check=True):
        path = self.directory / "apply.yaml"
        path.write_text(text)
        return self.ctl("apply", "-f", path, *arguments, check=check)

    def token(self, user=GUEST, *arguments):
        """A new bearer token."""
        return json.loads(self.ctl("token", "create", "--user", user, *arguments, "--output", "json").stdout)["token"]

    def kill(self, name, number=signal.SIGKILL):
        """Signals one process of the gateway by its id, when there is one; its status before."""
        before = wait_until(lambda: (now := self.processes().get(name, {})).get("pid") and now, f"{name} to have a process")
        os.kill(before["pid"], number)
        return before

    def wait_restarted(self, before, timeout_s=60):
        """Until the process that `before` describes is ready again in a later generation."""
        def restarted():
            now = self.processes().get(before["id"])
            return now and int(now["generation"]) > int(before["generation"]) and now.get("state") == "ready" and now
        return wait_until(restarted, f"{before['id']} to be back", timeout_s)

    def stop(self):
        return self.process.stop()

    def close(self):
        try:
            if self.process:
                self.process.stop()
                report = reports(self.log())
                assert not report, f"a sanitizer found something:\n{report}"
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
