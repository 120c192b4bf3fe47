"""The state graph's event log, replayed by somebody else: docs/state-graph.md as a program. And the cause of each death in it."""
import hashlib
import json
import re
import time

from common import ROOT, Broken


def table(name, macro):
    """The first column of a .def table of core/psg, in its order."""
    return re.findall(rf"^{macro}\((\w+),", (ROOT / "core" / "psg" / name).read_text(), re.MULTILINE)


class Replay:
    """The graph that the events make."""

    def __init__(self, events):
        self.nodes, self.edges, self.kinds = {}, set(), {}
        self.stages = {}
        last = ""
        for sequence, event in events:
            if event["timestamp"] <= last:
                raise Broken(f"event {sequence}: {event['timestamp']} does not come after {last}")
            last = event["timestamp"]
            if event["event_family"] == "graph_update":
                self.apply(sequence, event)

    def apply(self, sequence, event):
        payload, before = event["payload"], (len(self.nodes), len(self.edges))
        for operation in payload.get("operations") or [payload]:
            self.operate(sequence, operation)
        after = (len(self.nodes), len(self.edges))
        if after != (payload["node_count"], payload["edge_count"]):
            raise Broken(f"event {sequence} says {payload['node_count']} nodes and {payload['edge_count']} edges, the replay has {after}")
        if (after[0] - before[0], after[1] - before[1]) != (event["node_delta"], event["edge_delta"]):
            raise Broken(f"event {sequence}: its deltas are not what its operations do")

    def operate(self, sequence, operation):
        what = operation["operation"]
        if "edge_type" in operation:
            edge = (operation["edge_type"], operation["from_id"], operation["to_id"])
            if (what == "create") == (edge in self.edges):
                raise Broken(f"event {sequence}: {what} of edge {edge}")
            (self.edges.add if what == "create" else self.edges.remove)(edge)
            return
        node = operation["node_id"]
        if (what == "create") == (node in self.nodes):
            raise Broken(f"event {sequence}: {what} of node {node}")
        if what == "delete":
            gone = {edge for edge in self.edges if node in edge[1:]}
            if len(gone) != operation["edges"]:
                raise Broken(f"event {sequence}: node {node} takes {len(gone)} edges with it, not {operation['edges']}")
            self.edges -= gone
            del self.nodes[node]
            return
        self.nodes[node], self.kinds[node] = operation["new_value"], operation["node_type"]
        if operation["node_type"] == "StageNode":
            self.stages[node] = operation["new_value"]

    def hash(self):
        types, edge_types = table("types.def", "PSG_TYPE"), table("edges.def", "PSG_EDGE")
        digest = hashlib.sha256()
        for node in sorted(self.nodes, key=lambda one: (types.index(self.kinds[one]), one)):
            text = json.dumps(self.nodes[node], separators=(",", ":"), ensure_ascii=False).encode()
            digest.update(f"N {self.kinds[node]} {node} {len(text)}\n".encode() + text + b"\n")
        for kind, start, end in sorted(self.edges, key=lambda edge: (edge[1], edge[2], edge_types.index(edge[0]))):
            digest.update(f"E {kind} {start} {end}\n".encode())
        return digest.hexdigest()


def check(admin):
    """Replays the log and compares with what the core has. Answers the Replay and how many runs of the core it saw ended by force."""
    for _ in range(20):  # what the core has collected is in its graph at once and in its log within milliseconds
        before = admin.call("EventAdminService/GetStateHash")
        events = admin.events()
        replay = Replay(events)
        after = admin.call("EventAdminService/GetStateHash")
        if before == after and replay.hash() == after["stateHash"]:
            return replay, runs_ended(events)
        time.sleep(0.05)
    raise Broken(f"the replay has {len(replay.nodes)} nodes and {len(replay.edges)} edges and the hash {replay.hash()}, the core {after}")


def causes(replay, module, generation):
    """What the log says of the end of one life of a module: [(stage, reason)]."""
    found = []
    for stage in replay.stages.values():
        if stage["module"] == module and stage["generation"] == generation:
            if stage["stage"] in ("failed", "stopped", "backoff", "quarantined"):
                found.append((stage["stage"], stage["reason"]))
            elif stage["status"] == "failed":
                found.append((stage["stage"], stage.get("end_reason", "")))
    return [one for one in found if one[1]]


def runs_ended(events):
    """How many runs of the core ended without having been asked to, as the next one noted."""
    return sum(1 for _, event in events if event["event_type"] == "trace_status_changed" and event["stage_status"] == "failed"
               and event["payload"]["reason"] == "core.restarted")
