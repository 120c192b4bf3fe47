"""What the gateway's log says of a while: when each module and the core served, and when a core ended. The log is written as things happen, to the
microsecond, and outlives every process; so an answer that came meanwhile can be held against what was possible then."""
import collections
import contextlib
import datetime
import json
import math
import signal

HOLD_S = 0.25  # dispatch.hold_ms, and coreWaitMs of mcp
CRASH_S = 0.2  # so long may a process that ends by its own fault serve nobody before it is gone
SLACK_S = 0.03  # between what happens and when this process, on a busy machine, looks at the clock


class Log:
    """The gateway's log, read on from where it was read to."""

    def __init__(self, world):
        self.world, self.position = world, 0
        self.new()

    def new(self):
        """The whole lines since the last time."""
        with open(self.world.gateway.process.stderr, "rb") as file:
            if file.seek(0, 2) < self.position:  # the gateway was started anew
                self.position = 0
            file.seek(self.position)
            data = file.read()
        data = data[:data.rfind(b"\n") + 1]
        self.position += len(data)
        return data.decode(errors="replace").splitlines()


def events(lines):
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            event = json.loads(line)
            yield datetime.datetime.fromisoformat(event["time"].replace("Z", "+00:00")).timestamp(), event


class Timeline:
    """processes: those at its beginning, as the core shows them. killed: as procs.KILLED, since the supervisor may hear of an end late."""

    def __init__(self, lines, processes, killed=()):
        self.served, self.deaths, self.states = (collections.defaultdict(list) for _ in range(3))
        self.core_ends = []
        self.since = {(name, int(process["generation"])): -math.inf for name, process in processes.items()
                      if process["state"] == "ready" and "generation" in process}
        found, cores = list(events(lines)), {processes["core"]["pid"]} if processes else set()
        cores |= {event["pid"] for _, event in found if event["message"] == "started" and event.get("module") == "core"}
        found += [(time_s, {"message": "ended", "module": "core"}) for pid, time_s in killed if pid in cores]
        found += [(time_s - CRASH_S, {**event, "until": time_s}) for time_s, event in found if event["message"] == "ended" and event.get("module") == "core"
                  and event.get("signal") not in (None, 0, signal.SIGKILL)]
        for time_s, event in sorted(found, key=lambda item: item[0]):
            if event["message"] == "transition":
                self.changed(time_s, event["module"].partition("@")[0], int(event["generation"]), event["to"])
            elif event["message"] == "ready" and event.get("process") == "core":  # modules attach while its log still comes out
                self.since["core", 0] = time_s
            elif event["message"] == "ended" and event.get("module", "core") != "core":
                self.deaths[event["module"].partition("@")[0]].append((time_s, time_s + event["next_ms"] / 1000))
            elif event["message"] in ("ended", "told to end") and event.get("module", event.get("process")) == "core":
                self.core_ends.append((time_s, event.get("until", time_s)))
                for module, generation in list(self.since):
                    self.close(time_s, module, generation)
        for module, generation in list(self.since):
            self.close(math.inf, module, generation)

    def changed(self, time_s, module, generation, state):
        self.states[module].append((time_s, state))
        if state == "ready":
            self.since[module, generation] = time_s
        else:
            self.close(time_s, module, generation)

    def close(self, time_s, module, generation):
        since = self.since.pop((module, generation), None)
        if since is not None:
            self.served[module].append((since, time_s))

    def __str__(self):
        return f"served: {dict(self.served)}; ends of the core: {self.core_ends}"

    # ---- questions ----

    def all_served(self, modules, begin, end):
        """Whether there was a moment between these at which each of the modules served."""
        spans = [(begin, end)]
        for module in modules:
            spans = [(max(a, c), min(b, d)) for a, b in spans for c, d in self.served[module] if max(a, c) < min(b, d)]
        return bool(spans)

    def served_throughout(self, module, begin, end):
        for a, b in sorted(self.served[module]):
            if a <= begin < b:
                begin = b
        return begin >= end

    def ends(self, module, begin, end):
        """When one of its processes stopped serving between these."""
        return [b for _, b in self.served[module] if begin <= b <= end]

    def leaves(self, module, begin, end):
        """Whether a process of it was told to go between these."""
        return any(begin <= time_s <= end and state in ("draining", "rolling-back") for time_s, state in self.states[module])

    def core_ended(self, begin, end):
        """Whether a core ended, or was on its way to crash, between these."""
        return any(first <= end and begin <= last for first, last in self.core_ends)

    def core_away_s(self, begin, end):
        """For how long no core had been ready, at the worst moment between these."""
        spans, worst = sorted(self.served["core"]), 0
        for (_, gone), back in zip(spans, [begun for begun, _ in spans[1:]] + [math.inf]):
            moment = min(end, back)
            if gone <= moment and begin <= moment:
                worst = max(worst, moment - gone)
        return worst

    def state(self, module, moment):
        """The last one that any process of it entered before that moment; "crashing": its last two lives never got ready; "pausing": it was to be
        started again only a while later."""
        deaths = [(time_s, due) for time_s, due in self.deaths[module] if time_s <= moment]
        if sum(1 for time_s, _ in deaths if self.last_ready(module, moment) < time_s) > 1:
            return "crashing"
        if deaths and deaths[-1][1] > moment + HOLD_S - SLACK_S:
            return "pausing"
        return next((state for time_s, state in reversed(self.states[module]) if time_s <= moment), "ready")

    def last_ready(self, module, moment):
        return max((end for begin, end in self.served[module] if begin <= moment), default=-math.inf) + 2 * SLACK_S
