"""Memory (proportional set size) of each process, idle and under load; and the cold start of the whole stack."""
import contextlib
import threading
import time

from common import Child, Directory, Failure, Row, percentile, program, pss_kb, say
from kill import Caller
from stack import MARK, Stack

LOAD_CONNECTIONS, LOAD_MS = 64, 3000
SETTLE_S = 1


def sizes_mb(pids):
    return {name: pss_kb(pid) / 1024 for name, pid in pids.items()}


def loaded_mb(gateway, pids):
    """The largest sizes seen while tools/call is asked for over many connections."""
    largest = {name: 0 for name in pids}
    with Directory() as directory, contextlib.ExitStack() as stack:
        path = directory / "request"
        path.write_text(gateway.request_text("modern"), newline="")
        load = stack.enter_context(Child([program("http_load"), *gateway.listener("mcp"), path, MARK]))
        asking = threading.Thread(target=load.ask, args=(LOAD_CONNECTIONS, 0, LOAD_MS, 0))
        asking.start()
        while asking.is_alive():
            for name, size in sizes_mb(pids).items():
                largest[name] = max(largest[name], size)
            time.sleep(0.2)
        asking.join()
    return largest


def cold_start_ms(gateway):
    """The stack is down; milliseconds from starting it to the first tools/call that is answered rightly."""
    start = time.monotonic()
    gateway.start(wait=False)
    caller = None
    while True:
        try:
            caller = caller or Caller(gateway, "mcp")
            if caller.call() == "right":
                caller.close()
                return (time.monotonic() - start) * 1000
        except (TypeError, StopIteration, KeyError):  # no status yet
            pass
        time.sleep(0.001)


def start_rows(upstream, rounds):
    took = []
    with Stack(upstream.port) as gateway:
        gateway.fill()
        for _ in range(rounds):
            gateway.stop()
            took.append(cold_start_ms(gateway))
    return [Row("cold start of the whole stack to the first served tools/call: p50", percentile(took, 0.5), "ms",
                budget=("measured", "<=", COLD_START_MS),
                note=f"{rounds} starts, {min(took):.0f} to {max(took):.0f} ms, asked through the operator's command")]


SUPERVISOR_MB, COLD_START_MS = 3, 150  # budgets


def run(options, upstream):
    """Of a stack of its own, which has answered one call: nothing else has put load on it before it is called idle."""
    with Stack(upstream.port) as gateway:
        gateway.fill()
        pids = {name: pid for name, pid in gateway.pids().items() if pid and name not in ("bench", "mcp2")}
        caller = Caller(gateway, "mcp")
        if caller.call() != "right":
            raise Failure("the fresh stack does not serve")
        caller.close()
        time.sleep(SETTLE_S)
        idle = sizes_mb(pids)
        loaded = loaded_mb(gateway, pids)
    out = []
    for name in pids:
        budget = ("measured", "<=", SUPERVISOR_MB) if name == "supervisor" else None
        out.append(Row(f"{name}, idle", idle[name], "MB", budget=budget))
        out.append(Row(f"{name}, {LOAD_CONNECTIONS} connections", loaded[name], "MB"))
    say("cold starts")
    return out + start_rows(upstream, options.rounds)
