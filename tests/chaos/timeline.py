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
SLACK_S = 0.03  # between what happens and when it is in the log
LONG_MS = 1200  # of a pause before a restart: it can be met
NOTICED_S = 2  # so long after a module the supervisor may see that the core has gone


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


def by_order(item):
    return item[0]


def core_ends(found):
    """[(first, last)]: between which moments each core that the supervisor saw end did so. One that was told to leaves from then on; one that ends
    by its own fault serves nobody for a while before the first one notices, a module or the supervisor."""
    told, noticed, served = None, [], -math.inf
    for time_s, event in sorted(found, key=by_order):
        if event["message"] == "told to end" and event.get("process") == "core":
            told = time_s
        elif event["message"] == "ready" and event.get("process") == "core":
            served = time_s
        elif event["message"] == "detached from the core":
            noticed.append(time_s)
        elif event["message"] == "ended" and event.get("module") == "core":
            first = min([time_s, *(moment for moment in noticed if moment > time_s - NOTICED_S)])
            yield (told or (first if event.get("signal") == signal.SIGKILL else max(first - CRASH_S, served))), time_s
            told, noticed = None, []


class Timeline:
    """processes: those at its beginning, as the core shows them. killed: as procs.KILLED, since others may hear of an end late."""

    def __init__(self, lines, processes, killed=()):
        self.served, self.ended, self.deaths, self.states = (collections.defaultdict(list) for _ in range(4))
        self.since = {(name, int(process["generation"])): -math.inf for name, process in processes.items()
                      if process["state"] == "ready" and "generation" in process}
        self.were_ready = set(self.since)
        found = list(events(lines))
        lives = {process["pid"]: (name, int(process["generation"])) for name, process in processes.items() if "generation" in process and "pid" in process}
        lives |= {event["pid"]: (event["module"].partition("@")[0], int(event["generation"])) for _, event in found if event["message"] == "started" and "pid" in event}
        killed = [(lives[pid], first, last) for pid, first, last in killed if pid in lives]
        self.core_ends = [*core_ends(found), *((first, last) for (name, _), first, last in killed if name == "core")]
        found += [(first, {"message": "core gone"}) for first, _ in self.core_ends]  # and when its end is told, what began meanwhile
        found += [(first, {"message": "killed", "life": life, "until": last}) for life, first, last in killed if life[0] != "core"]
        for time_s, event in sorted(found, key=by_order):
            self.happened(time_s, event)
        for module, generation in list(self.since):
            self.close(math.inf, module, generation)

    def happened(self, time_s, event):
        what, module = event["message"], str(event.get("module", "")).partition("@")[0]
        if what == "transition":
            self.changed(time_s, module, int(event["generation"]), event["to"])
        elif what == "ready" and event.get("process") == "core":  # modules attach while its log still comes out
            self.since["core", 0] = time_s
        elif what == "ended" and module not in ("core", ""):
            self.deaths[module].append((time_s, time_s + event["next_ms"] / 1000, int(event["generation"])))
        elif what == "killed":
            self.close(time_s, *event["life"], event["until"])
        elif what == "core gone" or (what == "ended" and module == "core"):
            for name, generation in list(self.since):
                self.close(time_s, name, generation)

    def changed(self, time_s, module, generation, state):
        self.states[module].append((time_s, state))
        if state == "ready":
            self.since[module, generation] = time_s
            self.were_ready.add((module, generation))
        else:
            self.close(time_s, module, generation)

    def close(self, time_s, module, generation, until=0):
        since = self.since.pop((module, generation), None)
        if since is not None:
            self.served[module].append((since, time_s))
            self.ended[module].append((time_s, max(time_s, until)))

    def __str__(self):
        return f"served: {dict(self.served)}; ends of the core: {self.core_ends}"

    # ---- questions ----

    def serving(self):
        """Who does so in the end."""
        return {module for module, spans in self.served.items() if any(end == math.inf for _, end in spans)}

    def away(self, modules, begin, end, for_s):
        """Whether there was a moment between these from which on, for so long, they did not all serve at once."""
        spans = [(-math.inf, math.inf)]
        for module in modules:
            spans = [(max(a, c), min(b, d)) for a, b in spans for c, d in self.served[module] if max(a, c) < min(b, d)]
        gone = -math.inf
        for back, leaves in (*sorted(spans), (math.inf, math.inf)):
            if max(gone, begin) <= min(back - for_s, end):
                return True
            gone = max(gone, leaves)
        return False

    def served_throughout(self, module, begin, end):
        for a, b in sorted(self.served[module]):
            if a <= begin < b:
                begin = b
        return begin >= end

    def ends(self, module, begin, end):
        """How many of its processes may have stopped serving between these."""
        return sum(1 for first, last in self.ended[module] if first <= end and begin <= last)

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

    def states_of(self, module, begin, end):
        """Every one that it was in between these."""
        moments = {begin, *(entry[0] for entry in (*self.states[module], *self.deaths[module]) if begin < entry[0] <= end)}
        return {self.state(module, moment) for moment in moments}

    def state(self, module, moment):
        """The last one that any process of it entered before that moment; "crashing": its last two lives never got ready; "pausing": it was to be
        started again only a while later."""
        deaths = [(due, (module, generation)) for time_s, due, generation in self.deaths[module] if time_s <= moment]
        if len(deaths) > 1 and not {life for _, life in deaths[-2:]} & self.were_ready:
            return "crashing"
        if deaths and deaths[-1][0] > moment + HOLD_S - SLACK_S:
            return "pausing"
        return next((state for time_s, state in reversed(self.states[module]) if time_s <= moment), "ready")
