"""Connections that are slow, cut in the middle, or lead nowhere: to an upstream, and of an operator in the middle of a write."""
import base64
import json
import time

from common import Broken
from harness.http1 import Connection
from trial import Scenario

SPELL_S = 0.5


def upstream(mode):
    """The wire to the world clock misbehaves for a while."""
    def act(trial):
        wire = trial.world.wire
        wire.mode = mode
        try:
            time.sleep(SPELL_S)
        finally:
            wire.mode = "pass"
        trial.back(time.monotonic())
    return act


def half_write(share):
    """Two documents in one request, and the connection is cut after a share of it: both are there, or none is."""
    def act(trial):
        world, number = trial.world, trial.rng.randrange(1 << 30)
        names = [f"cut{number}-{part}" for part in range(2)]
        documents = [{"documentJson": base64.b64encode(json.dumps({"kind": "Team", "metadata": {"name": name}, "spec": {}}).encode()).decode()}
                     for name in names]
        body = json.dumps({"documents": documents}).encode()
        head = f"POST /core.admin.v1.CatalogAdminService/Apply HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        data = head.encode() + body
        with Connection(str(world.gateway.run / "core" / "admin.http.sock")) as one:
            one.send_bytes(data[:int(len(data) * share)])
        time.sleep(0.05)
        there = [name for name in names if name in world.admin.names("Team")]
        if len(there) == 1 or (there and share < 1):
            raise Broken(f"of a write that was cut after {share:.0%} this is there: {there}")
        for name in there:
            world.admin.call("CatalogAdminService/Delete", {"kind": "Team", "name": name})
        trial.back(time.monotonic())
    return act


NOBODY = frozenset()
SCENARIOS = [
    Scenario("upstream slow for", "rest", "ready", upstream("delay"), hits=NOBODY),
    Scenario("upstream held for", "rest", "ready", upstream("hold"), hits=NOBODY),
    *(Scenario(f"upstream {mode} for", "rest", "ready", upstream(mode), hits=frozenset({"answers rest"})) for mode in ("cut", "garble", "refuse")),
    *(Scenario(f"write cut at {share:.0%} at", "core", "ready", half_write(share), hits=NOBODY) for share in (0.3, 0.7, 0.99, 1)),
]
