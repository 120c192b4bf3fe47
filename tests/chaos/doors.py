"""The load: a client or more at each public door, each request with a payload of its own, every answer judged.

right    the payload that was asked for
refused  an error in the protocol's own form, with a stable code, that says: unavailable, try again
failed   any other error in the protocol's own form, with a stable code
broken   the connection ended, or nothing came in time
wrong    anything else: another payload, another request's id, a form that the protocol does not know
"""
import collections
import dataclasses
import itertools
import json
import random
import threading
import time

from common import Broken
from harness.http1 import Connection
from harness.mcp import ModernMcp

RIGHT, REFUSED, FAILED, BROKEN, WRONG = "right", "refused", "failed", "broken", "wrong"
ANSWER_TIMEOUT_S = 15


@dataclasses.dataclass(frozen=True)
class Asked:
    """One request: when it began and ended (by the wall's clock), how, with which code, by which port of ours and which number others know it,
    and how the answer began."""
    began: float
    ended: float
    outcome: str
    code: str
    port: int
    number: int
    detail: str


class Seen:
    """What one door saw since the last look."""

    def __init__(self):
        self.counts, self.codes, self.examples, self.slowest_ms, self.asked = collections.Counter(), collections.Counter(), {}, 0.0, []

    def add(self, caller, outcome, code, detail, began):
        ended = time.time()
        self.asked.append(Asked(began, ended, outcome, code, caller.port, caller.number, "" if outcome == RIGHT else detail))
        self.counts[outcome] += 1
        if code:
            self.codes[code] += 1
        self.examples.setdefault(outcome, detail)
        self.slowest_ms = max(self.slowest_ms, (ended - began) * 1000)


def kind_of(error):
    """While somebody is away nothing but "unavailable, try again" may be said."""
    return REFUSED if error["retryable"] is True and error.get("category", "UNAVAILABLE") == "UNAVAILABLE" else FAILED


class Caller:
    """One request at a time on a connection that is kept. Nothing is retried."""

    def __init__(self, address, token):
        self.address, self.token, self.connection, self.numbers = address, token, None, itertools.count(random.randrange(1000, 1 << 30))
        self.number = self.port = 0  # of the last request

    def close(self):
        if self.connection:
            self.connection.close()
            self.connection = None

    def ask(self):
        """(outcome, code, detail)."""
        try:
            number = self.number = next(self.numbers)
            self.connection = self.connection or Connection(self.address, ANSWER_TIMEOUT_S)
            self.port = self.connection.socket.getsockname()[1]
            self.send(number)
            response = self.connection.read()
            if response is None:
                raise ConnectionError("closed without an answer")
        except (OSError, ValueError, AssertionError) as error:
            self.close()
            return BROKEN, "", repr(error)[:200]
        if (response.header("connection") or "").lower() == "close":
            self.close()
        try:
            outcome, code = self.judge(number, response)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            outcome, code = WRONG, ""
        return outcome, code, f"{response!r:.600}"

    def send(self, number):
        raise NotImplementedError

    def judge(self, number, response):
        raise NotImplementedError


class McpTool(Caller):
    """tools/call in the form of 2026-07-28. tool: (name, arguments of a number, whether a result is right for that number)."""

    def __init__(self, address, token, tool):
        super().__init__(address, token)
        self.name, self.arguments, self.right = tool
        self.client = ModernMcp(f"http://{address[0]}:{address[1]}/mcp", token)

    def send(self, number):
        body, headers = self.client.message("tools/call", {"name": self.name, "arguments": self.arguments(number)})
        body["id"] = number
        self.connection.send("POST", "/mcp", {**self.client.headers, **headers}, json.dumps(body).encode())

    def judge(self, number, response):
        message = response.json()
        if "error" in message:
            data = message["error"]["data"]
            return (kind_of(data) if message.get("id") in (number, None) else WRONG), data["code"]
        result = message["result"]
        if response.status != 200 or message["id"] != number:
            return WRONG, ""
        if result.get("isError"):
            return FAILED, "tool error"
        return (RIGHT if self.right(result, number) else WRONG), ""


class Hello(Caller):
    """GET /hello of the example module: plain HTTP, a protocol of its own."""

    def send(self, number):
        self.connection.send("GET", "/hello", {"Authorization": f"Bearer {self.token}"})

    def judge(self, number, response):
        if response.status == 200:
            return (RIGHT if "guest@example.com" in response.body.decode() else WRONG), ""
        problem = response.json()
        return (kind_of(problem) if response.status == problem["status"] else WRONG), problem["code"]


CONVERT = ("convert_units", lambda n: {"value": n, "from_unit": "km", "to_unit": "m"},
           lambda result, n: result["structuredContent"]["result"] == n * 1000)
COUNT = ("word_count", lambda n: {"text": "word " * (n % 40 + 1)},
         lambda result, n: result["structuredContent"]["words"] == n % 40 + 1)


class Client(threading.Thread):
    """Asks one caller again and again, at a pace, until closed; can be held. keeps: its connection, from one request to the next."""

    def __init__(self, name, make, pace_s, keeps, add):
        super().__init__(daemon=True, name=f"door-{name}")
        self.make, self.pace_s, self.keeps, self.add = make, pace_s, keeps, add
        self.ending, self.open_, self.idle = threading.Event(), threading.Event(), threading.Event()
        self.open_.set()
        self.rights = 0  # answers that were right, and are to be seen

    def run(self):
        caller = self.make()
        while not self.ending.is_set():
            if not self.open_.is_set():
                caller.close()
                caller = self.make()
                self.idle.set()
                self.open_.wait(0.2)
                continue
            began = time.time()
            outcome, code, detail = caller.ask()
            self.add(caller, outcome, code, detail, began)
            self.rights += outcome == RIGHT
            if not self.keeps:
                caller.close()
            self.ending.wait(self.pace_s)
        caller.close()


class Door:
    """The clients of one door, and what they saw. keeps: one for each client, whether it keeps its connection."""

    def __init__(self, name, make, pace_s, keeps):
        self.name, self.lock, self.seen = name, threading.Lock(), Seen()
        self.clients = [Client(name, make, pace_s, each, self.add) for each in keeps]

    def start(self):
        for client in self.clients:
            client.start()

    def add(self, *what):
        with self.lock:
            self.seen.add(*what)

    def take(self):
        """What was seen since the last take."""
        with self.lock:
            taken, self.seen = self.seen, Seen()
        return taken

    def hold(self):
        """No request is under way and no connection open when this returns."""
        for client in self.clients:
            client.idle.clear()
            client.open_.clear()
        for client in self.clients:
            if not client.idle.wait(ANSWER_TIMEOUT_S + 5):
                raise Broken(f"the door {self.name} did not come to rest: a request was never answered")

    def release(self):
        for client in self.clients:
            client.open_.set()

    def close(self):
        for client in self.clients:
            client.ending.set()
            client.open_.set()
        for client in self.clients:
            client.join(ANSWER_TIMEOUT_S + 5)


def serves_again_ms(caller, since, bound_s):
    """Milliseconds from `since` to the first right answer of a request that began after it."""
    while True:
        outcome, _, detail = caller.ask()
        now = time.monotonic()
        if outcome == RIGHT:
            return (now - since) * 1000
        if now - since > bound_s:
            raise Broken(f"did not serve again within {bound_s} s; at last: {outcome} {detail}")
        time.sleep(0.001)
