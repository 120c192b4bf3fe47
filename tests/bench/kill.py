"""kill -9 of a module and of the core: how long until it is ready and until the next call is served, and that nobody else notices.

Ready is what the gateway's own log says, on the same clock: a module that went through all phases and has proven its deny path, a core whose
sockets listen and whose state graph is loaded. It is taken alone, when nothing else happens on the machine, since it is the time that a start
needs, and again under load. Served is what a client sees: the first tools/call that is answered rightly, asked anew every
quarter of a millisecond; restart, attach and one whole call are in it. Meanwhile a second MCP endpoint is asked every millisecond (tools/call; tools/list while the REST
module is the victim); none of its requests may fail. When the core is killed nobody can be served for a moment: then a connection that
breaks, or an answer that is neither the tool's result nor a refusal in the protocol's own form, counts as a failure.
"""
import datetime
import json
import os
import select
import signal
import threading
import time
import typing

from common import Failure, Row, percentile, say
from harness.http1 import Connection
from stack import MARK, TOOL

PROBE_PAUSE_S = 0.00025
GIVE_UP_S = 20


class Caller:
    """One request at a time on a connection that is kept, with a new number each time."""

    def __init__(self, stack, listener, method="tools/call"):
        self.address, self.number, self.connection = stack.listener(listener), 0, None
        self.request = stack.request_text("modern", listener, method)
        self.wanted = None if method == "tools/call" else TOOL

    def call(self):
        """"right", "refused" (an answer in the protocol's own form) or "broken"."""
        self.number += 1
        text = f"{self.number:08d}"
        try:
            self.connection = self.connection or Connection(self.address, GIVE_UP_S)
            self.connection.send_bytes(self.request.replace(MARK, text).encode())
            answer = self.connection.read()
            if answer is None:
                raise ConnectionError
            if (answer.header("connection") or "").lower() == "close":
                self.close()
            message = json.loads(answer.body)
        except (OSError, ValueError):
            self.close()
            return "broken"
        if answer.status == 200 and "result" in message and (self.wanted or text) in json.dumps(message["result"]) and not message["result"].get("isError"):
            return "right"
        return "refused" if "error" in message or message.get("result", {}).get("isError") else "broken"

    def close(self):
        if self.connection:
            self.connection.close()
            self.connection = None


class Bystander(threading.Thread):
    """Calls at another endpoint, one a millisecond, until stopped; counts the outcomes."""

    def __init__(self, stack, listener, method):
        super().__init__(daemon=True)
        self.caller, self.stopping = Caller(stack, listener, method), threading.Event()
        self.outcomes = {"right": 0, "refused": 0, "broken": 0}

    def run(self):
        while not self.stopping.wait(0.001):
            self.outcomes[self.caller.call()] += 1
        self.caller.close()

    def stop(self):
        self.stopping.set()
        self.join()
        return self.outcomes


def kill(stack, name, killed_at):
    """Returns when the process is gone. killed_at: a list that gets the time of the signal, in seconds since the epoch."""
    process = os.pidfd_open(stack.pid(name))
    killed_at.append(time.time())
    signal.pidfd_send_signal(process, signal.SIGKILL)
    select.select([process], [], [])
    os.close(process)


def back_again_ms(stack, name, caller, killed_at):
    """Kills once; milliseconds until the next right answer. Nothing is asked before the process is gone."""
    start = time.monotonic()
    kill(stack, name, killed_at)
    while caller.call() != "right":
        if time.monotonic() - start > GIVE_UP_S:
            raise Failure(f"{name} did not serve again within {GIVE_UP_S} s")
        time.sleep(PROBE_PAUSE_S)
    return (time.monotonic() - start) * 1000


def ready_times(stack, name):
    """Seconds since the epoch, one for each time that it became ready."""
    times = []
    for line in stack.log().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if name == "core":
            is_it = entry["process"] == "core" and entry["message"] == "ready"
        else:
            is_it = entry["message"] == "transition" and entry.get("module") == name and entry["to"] == "ready"
        if is_it:
            times.append(datetime.datetime.fromisoformat(entry["time"].replace("Z", "+00:00")).timestamp())
    return sorted(times)


def until_ready_ms(stack, name, killed_at):
    """For each kill, milliseconds until it was ready again."""
    times = ready_times(stack, name)
    found = [next((time_s for time_s in times if time_s > killed), None) for killed in killed_at]
    if None in found:
        raise Failure(f"the log does not say that {name} was ready again")
    return [(ready - killed) * 1000 for ready, killed in zip(found, killed_at)]


class Victim(typing.NamedTuple):
    endpoint: str  # where to call
    other: str  # where others call meanwhile
    ready_ms: float  # budget until it is ready


VICTIMS = {"mcp": Victim("mcp", "mcp2", 10), "rest": Victim("mcp", "mcp2", 10), "core": Victim("mcp", "mcp2", 25)}
SERVED_MS = 100  # the promise to clients, whoever is killed


def run_alone(options, stack, name):
    """The rows of one process that is killed again and again, and of nothing else: nobody calls, and nobody looks before it is over."""
    killed_at = []
    for _ in range(options.kills):
        kill(stack, name, killed_at)
        time.sleep(options.settle)
        stack.wait_ready()
    ready, what = until_ready_ms(stack, name, killed_at), f"kill -9 of {name} to ready, alone"
    return [Row(f"{what}: p50", percentile(ready, 0.5), "ms", budget=("measured", "<=", VICTIMS[name].ready_ms),
                note=f"{len(ready)} kills, fastest {min(ready):.1f}"),
            Row(f"{what}: p99", percentile(ready, 0.99), "ms", note=f"slowest {max(ready):.1f}")]


def run_loaded(options, stack, name):
    """The rows of one process that is killed again and again while others call."""
    endpoint, other, _ = VICTIMS[name]
    caller, took, killed_at = Caller(stack, endpoint), [], []
    bystander = Bystander(stack, other, "tools/list" if name == "rest" else "tools/call")
    bystander.start()
    for number in range(options.kills):
        took.append(back_again_ms(stack, name, caller, killed_at))
        stack.wait_ready()
        time.sleep(options.settle)
        if number % 10 == 9:
            say(f"{name}: {number + 1} kills, the last one {took[-1]:.1f} ms")
    caller.close()
    seen = bystander.stop()
    what, ready = f"kill -9 of {name} under load to", until_ready_ms(stack, name, killed_at)
    elsewhere = f"{name}: requests failed elsewhere ({other}), of {sum(seen.values())}"
    failed = seen["broken"] + (seen["refused"] if name != "core" else 0)
    return [Row(f"{what} ready: p50", percentile(ready, 0.5), "ms", note=f"{len(ready)} kills, fastest {min(ready):.1f}"),
            Row(f"{what} ready: p99", percentile(ready, 0.99), "ms", note=f"slowest {max(ready):.1f}"),
            Row(f"{what} the next served call: p50", percentile(took, 0.5), "ms", budget=("measured", "<=", SERVED_MS),
                note=f"fastest {min(took):.1f}"),
            Row(f"{what} the next served call: p99", percentile(took, 0.99), "ms", budget=("measured", "<=", SERVED_MS),
                note=f"slowest {max(took):.1f}"),
            Row(elsewhere, failed, "requests", budget=("measured", "<=", 0),
                note=f"refused in the protocol's form while no core was there: {seen['refused']}" if name == "core" else "")]


def run(options, stack):
    return [row for part in (run_alone, run_loaded) for name in VICTIMS for row in part(options, stack, name)]
