"""Versions of a gateway's modules, good and bad (tests/fixtures/odd_version.c), and upgrades to them."""
import contextlib
import os
import shutil

from admin import Refused
from common import Broken
from harness import BUILD
from harness.processes import wait_until

PROMOTED, ROLLED_BACK = "promoted", "rolled back"
LATE, LINGERS = 0o010, 0o001  # who may not execute a program whose version is held there (odd_version.c)


class Versions:
    def __init__(self, world):
        self.world, self.directory = world, world.directory / "versions"

    def program(self, module, *words):
        """A program of that module that behaves as the words say; a number makes a version of its own."""
        path = self.directory / module / ".".join(words) / f"gatehouse-{module}"
        if not path.exists():
            path.parent.mkdir(parents=True)
            shutil.copy2(BUILD / "tests" / f"odd_{module}", path)
        return path

    def hold(self, program, *where):
        """Keeps a version in a state that a scenario has to meet, until it is let go: where the words of its folder say so."""
        program.chmod(0o755 & ~sum(where))

    def let_go(self, module):
        for program in (self.directory / module).iterdir():
            self.hold(program / f"gatehouse-{module}")

    def of(self, module):
        """What the core says of them; {} while no core answers."""
        try:
            return self.world.admin.describe(module).get("versions", {})
        except (ConnectionError, Refused):
            return {}

    def upgrade(self, module, program, probation_ms):
        """The answer of a core that is upgraded itself may be lost: on a busy machine it may have left before."""
        with contextlib.suppress(*([ConnectionError] if module == "core" else [])):
            self.world.admin.order("Upgrade", module, path=str(program), probationMs=probation_ms)

    def wait_phase(self, module, *phases, timeout_s=20):
        """Until the upgrade is in one of these, which is returned."""
        try:
            return wait_until(lambda: (now := self.of(module).get("phase")) in phases and now, " or ".join(phases), timeout_s, pause_s=0.002)
        except AssertionError:
            raise Broken(f"the upgrade of {module} is not {' or '.join(phases)}: {self.of(module)}") from None

    def settled(self, module, timeout_s=20):
        """Until nothing is under way and the module is ready: the newest change."""
        def done():
            now = self.of(module)
            return now.get("changes") and not now.get("phase") and self.world.state(module) == "ready" and now["changes"][0]
        return wait_until(done, f"the upgrade of {module} to end", timeout_s, pause_s=0.005)

    def beside(self, module):
        """The process that is not the module's current one: a candidate, or one that retires; None."""
        found = (process for name, process in self.world.processes().items() if name.startswith(f"{module}@") and process.get("pid"))
        return next(found, None)

    def running(self, module):
        """The words of the version that serves, as the kernel says."""
        return os.path.basename(os.path.dirname(os.readlink(f"/proc/{self.world.pid(module)}/exe")))
