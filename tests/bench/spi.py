"""The SPI: a module's calls to the real core, against a raw Unix socket and against bare gRPC C core, in the same rounds."""
import contextlib

from common import CPUS, PINNED, Child, Directory, Row, medians, pin, program, say

# mode: (outstanding, pace in microseconds, pinned to one core)
MODES = {"pinned": (1, 0, True), "paced": (1, 1000, False), "many": (64, 0, False)}
ECHO_PAIRS = {"raw": ("spi_raw", "spi_raw"), "bare": ("spi_bare", "spi_bare"), "slim-bare": ("spi_slim", "spi_bare"),
              "slim-slim": ("spi_slim", "spi_slim"), "slim-room": ("spi_slim", "spi_room")}


class EchoPair:
    """A server and its client, each in a process of its own."""

    def __init__(self, client, server, path, stack):
        self.server = stack.enter_context(Child([program(server), "serve", path], ready=True))
        self.client = stack.enter_context(Child([program(client), "call", path]))
        self.pids = [self.client.pid, self.server.pid]

    def ask(self, outstanding, pace_us, milliseconds):
        return self.client.ask(outstanding, pace_us, milliseconds, self.server.pid)


class ModuleCall:
    """One SPI method, called by the benchmark module of a running gateway."""

    def __init__(self, module, word):
        self.module, self.word, self.pids = module, word, module.pids

    def ask(self, outstanding, pace_us, milliseconds):
        return self.module.ask(outstanding, pace_us, milliseconds, self.word)


def measure(pairs, rounds, milliseconds):
    """{(pair, mode): medians}, everything interleaved."""
    results = {}
    for number in range(rounds):
        say(f"SPI: round {number + 1} of {rounds}")
        for mode, (outstanding, pace_us, pinned) in MODES.items():
            for name, pair in pairs.items():
                if name == "raw" and outstanding > 1:
                    continue
                pin(pair.pids, PINNED if pinned else CPUS)
                results.setdefault((name, mode), []).append(pair.ask(outstanding, pace_us, milliseconds))
                pin(pair.pids, CPUS)
    return {key: medians(values) for key, values in results.items()}


def rows(results):
    out = []
    titles = {"bare": "gRPC C core to gRPC C core, echo", "slim-bare": "sdk/rpc to gRPC C core, echo",
              "slim-slim": "sdk/rpc to sdk/rpc, echo", "slim-room": "sdk/rpc to core/rpc, echo",
              "check": "module to gatehouse-core, CheckPermission", "get": "module to gatehouse-core, Catalog.Get"}
    present = [name for name in titles if (name, "pinned") in results]
    real = ("check", "get")
    for mode, label in (("pinned", "one outstanding, one core"), ("paced", "one call a millisecond")):
        raw = results[("raw", mode)]
        out.append(Row(f"raw Unix socket, {label}: p50", raw["p50_us"], "µs", note=f"p99 {raw['p99_us']:.1f}"))
        for name in present:
            result = results[(name, mode)]
            out.append(Row(f"{titles[name]}, {label}: p50", result["p50_us"], "µs", raw["p50_us"], "raw socket",
                           ("ratio", "<=", 2.5) if name in real else None, f"p99 {result['p99_us']:.1f}"))
    bare = results[("bare", "many")]
    for name in present:
        result = results[(name, "many")]
        note = f"p50 {result['p50_us']:.0f}, p99 {result['p99_us']:.0f}"
        out.append(Row(f"{titles[name]}, 64 in flight", result["rps"], "calls/s", bare["rps"] if name != "bare" else None,
                       "bare C core pair", ("ratio", ">=", 0.9) if name in real else None, note))
    for name in present:
        result = results[(name, "many")]
        out.append(Row(f"{titles[name]}, 64 in flight: client CPU", result["client_cpu_us"], "µs/call",
                       budget=("measured", "<=", 5) if name in real else None))
        out.append(Row(f"{titles[name]}, 64 in flight: server CPU", result["server_cpu_us"], "µs/call",
                       budget=("measured", "<=", 9) if name in real else None))
    return out


def run(options, gateway=None):
    """gateway: a running one with the benchmark module, or None: echoes only."""
    with Directory() as directory, contextlib.ExitStack() as stack:
        pairs = {name: EchoPair(client, server, directory / name, stack) for name, (client, server) in ECHO_PAIRS.items()}
        if gateway:
            module = stack.enter_context(gateway.bench_module())
            pairs.update({word: ModuleCall(module, word) for word in ("check", "get")})
        return rows(measure(pairs, options.rounds, options.milliseconds))
