"""What was acknowledged: documents, deletions, tokens and a session are written all the time, and every one has to be there afterwards.

A write is acknowledged (it has to be there), refused (it must not be there) or lost with its connection (it may be there, whole).
"""
import threading

from admin import Admin, Refused
from common import Broken
from harness.gateway import GUEST
from harness.mcp import LegacyMcp

KEPT = 60  # documents beyond this are deleted again, the oldest first


class Ledger(threading.Thread):
    def __init__(self, run, pace_s):
        super().__init__(daemon=True, name="ledger")
        self.run_directory, self.pace_s = run, pace_s
        self.there, self.gone, self.unknown, self.refused, self.tokens = [], set(), set(), set(), []
        self.acknowledged = self.lost = self.writes = 0
        self.failures = []
        self.lock, self.ending = threading.Lock(), threading.Event()
        self.open_, self.idle = threading.Event(), threading.Event()
        self.open_.set()

    def run(self):
        admin, number = Admin(self.run_directory), 0
        while not self.ending.is_set():
            if not self.open_.is_set():
                admin.close()
                self.idle.set()
                self.open_.wait(0.2)
                continue
            number += 1
            self.write(admin, number)
            self.writes = number
            self.ending.wait(self.pace_s)
        admin.close()

    def write(self, admin, number):
        name, token = f"w{number}", number % 20 == 0
        oldest = None if len(self.there) < KEPT else self.there[0]
        subject = oldest or name
        try:
            if oldest:
                admin.call("CatalogAdminService/Delete", {"kind": "Team", "name": oldest})
            elif token:
                value = admin.call("TokenAdminService/CreateToken", {"userEmail": GUEST, "name": name})["token"]
            else:
                admin.apply({"kind": "Team", "metadata": {"name": name, "description": "x" * 200}, "spec": {}})
        except Refused as refusal:
            with self.lock:
                self.failures.append(f"refused: {refusal}")
                unsure = refusal.category == "UNAVAILABLE" or oldest
                (self.unknown if unsure else self.refused).add(subject)
                if oldest:
                    self.there.remove(oldest)
        except ConnectionError as error:
            with self.lock:
                self.failures.append(f"broken: {error}")
                self.unknown.add(subject)
                self.lost += 1
                if oldest:
                    self.there.remove(oldest)
        else:
            with self.lock:
                self.acknowledged += 1
                if oldest:
                    self.there.remove(oldest)
                    self.gone.add(oldest)
                elif token:
                    self.tokens = [*self.tokens[-9:], value]
                else:
                    self.there.append(name)

    def take(self):
        """The failures since the last take."""
        with self.lock:
            taken, self.failures = self.failures, []
        return taken

    def take_acknowledged(self):
        """How many writes were acknowledged since the last take."""
        with self.lock:
            taken, self.acknowledged = self.acknowledged, 0
        return taken

    def hold(self):
        self.idle.clear()
        self.open_.clear()
        if not self.idle.wait(30):
            raise Broken("a write was never answered")

    def release(self):
        self.open_.set()

    def close(self):
        self.ending.set()
        self.open_.set()
        self.join(30)

    def check(self, admin, hello, session):
        """Broken when something that was acknowledged is not as it was; called while held. hello: makes a Caller for a token."""
        names = admin.names("Team")
        lost = [name for name in self.there if name not in names]
        back = [name for name in self.gone | self.refused if name in names]
        if lost or back:
            raise Broken(f"acknowledged and lost: {lost}; deleted or refused and there: {back}")
        for token in self.tokens:
            caller = hello(token)
            outcome, _, detail = caller.ask()
            caller.close()
            if outcome != "right":
                raise Broken(f"a token that was acknowledged is not taken: {detail}")
        session.check()


class Session:
    """An MCP session of 2025-11-25 that is opened once and has to outlive everything but its end."""

    def __init__(self, url, token):
        self.client = LegacyMcp(url, token)
        self.client.close()

    def check(self):
        try:
            tools = self.client.tools()
        except (OSError, ValueError, AssertionError) as error:
            raise Broken(f"the session is lost: {error!r:.300}") from None
        finally:
            self.client.close()
        if "convert_units" not in tools:
            raise Broken(f"the session sees {sorted(tools)}")
