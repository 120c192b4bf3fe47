"""tools/call through the gateway to a REST upstream, beside the upstream called directly and through nginx."""
import contextlib

from common import CPUS, PINNED, Child, Directory, Row, cpu_us, medians, pin, program, say
from stack import MARK, Nginx

GATEWAY = ("mcp", "core", "rest", "supervisor")


class Target:
    """Something that answers requests, with its load generator and the processes that work for it."""

    def __init__(self, name, address, request, expect, processes, directory, stack):
        path = directory / f"{name}.request"
        path.write_text(request, newline="")
        self.processes = processes
        self.load = stack.enter_context(Child([program("http_load"), *address, path, expect]))
        self.pids = [self.load.pid, *processes.values()]

    def ask(self, connections, pace_us, milliseconds):
        """The result, with the CPU time per request of each process."""
        before = {name: cpu_us(pid) for name, pid in self.processes.items()}
        result = self.load.ask(connections, pace_us, milliseconds, 0)
        result.update({name: (cpu_us(pid) - before[name]) / result["total"] for name, pid in self.processes.items()})
        return result


# mode: (connections, pace in microseconds, pinned to one core)
MODES = {"pinned": (1, 0, True), "paced": (1, 1000, False), "1": (1, 0, False), "32": (32, 0, False), "64": (64, 0, False)}


def targets(gateway, upstream, directory, stack):
    nginx = stack.enter_context(Nginx(directory, upstream.port))
    get = f"GET /items/{MARK} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    expect = f'"item":"{MARK}"'
    pids = gateway.pids()
    ours = {name: pids[name] for name in GATEWAY}
    found = {"direct": Target("direct", ("127.0.0.1", upstream.port), get, expect, {"upstream": upstream.pid}, directory, stack),
             "nginx": Target("nginx", ("127.0.0.1", nginx.port), get, expect, {"upstream": upstream.pid, "nginx": nginx.pid},
                             directory, stack)}
    for era in ("modern", "legacy"):
        found[era] = Target(era, gateway.listener("mcp"), gateway.request_text(era), MARK, {"upstream": upstream.pid, **ours},
                            directory, stack)
    return found


def measure(found, rounds, milliseconds):
    results = {}
    for number in range(rounds):
        say(f"tools/call: round {number + 1} of {rounds}")
        for mode, (connections, pace_us, pinned) in MODES.items():
            for name, target in found.items():
                pin(target.pids, PINNED if pinned else CPUS)
                results.setdefault((name, mode), []).append(target.ask(connections, pace_us, milliseconds))
                pin(target.pids, CPUS)
    return {key: medians(values) for key, values in results.items()}


TITLES = {"direct": "upstream directly", "nginx": "nginx to it", "modern": "tools/call, 2026-07-28", "legacy": "tools/call, 2025-11-25"}
LABELS = {"pinned": "one connection, one core", "paced": "one request a millisecond", "1": "one connection, free",
          "32": "32 connections", "64": "64 connections"}


def rows(results):
    out = []
    for mode in ("pinned", "paced", "1"):
        direct = results[("direct", mode)]
        out.append(Row(f"{TITLES['direct']}, {LABELS[mode]}: p50", direct["p50_us"], "µs", note=f"p99 {direct['p99_us']:.0f}"))
        for name in ("nginx", "modern", "legacy"):
            result = results[(name, mode)]
            out.append(Row(f"{TITLES[name]}, {LABELS[mode]}: added p50", result["p50_us"] - direct["p50_us"], "µs",
                           budget=None if name == "nginx" else ("measured", "<=", 200),
                           note=f"added p99 {result['p99_us'] - direct['p99_us']:.0f}, p50 {result['p50_us']:.0f}"))
    for mode in ("32", "64"):
        nginx = results[("nginx", mode)]
        for name, title in TITLES.items():
            result = results[(name, mode)]
            ours = name in ("modern", "legacy")
            out.append(Row(f"{title}, {LABELS[mode]}", result["rps"], "requests/s", nginx["rps"] if name != "nginx" else None,
                           "nginx proxying", ("ratio", ">=", 0.25) if ours else None,
                           f"p50 {result['p50_us']:.0f}, p99 {result['p99_us']:.0f} µs"))
    for name in ("nginx", "modern", "legacy"):
        result = results[(name, "64")]
        for process in ("nginx",) if name == "nginx" else GATEWAY:
            out.append(Row(f"{TITLES[name]}, 64 connections: CPU of {process}", result[process], "µs/request"))
    return out


def run(options, gateway, upstream):
    with Directory() as directory, contextlib.ExitStack() as stack:
        return rows(measure(targets(gateway, upstream, directory, stack), options.rounds, options.milliseconds))
