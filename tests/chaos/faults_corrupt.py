"""Nonsense where trusted bytes are expected (TRN-4, LIF-11): on the supervisor's control channel (both ways, also well-formed orders of past generations),
on the SPI and runtime sockets of every module, on the public doors, and in what a module answers. Sockets of running processes are taken
by pidfd_getfd: what is written there, the other side takes for the process's own words."""
import contextlib
import os
import socket
import time

import procs
from common import Broken
from harness.http1 import Connection
from states_odd import reset
from trial import Scenario

CONTROL_BYTES = 8192
ANSWERS = ("truncated", "garbage", "empty", "nothing", "two_results", "no_json", "huge", "partial_then_death")


# ---- the control channel ----

def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number, value):
    """One field of a protobuf message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def order(core_generation, tag, module, generation):
    return field(1, core_generation) + field(2, 1 << 20) + field(tag, field(1, module) + field(2, generation))


KILL, EXITED = 15, 34


def noise(rng):
    return [rng.randbytes(length) for length in (1, 2, 17, 100, 1000, CONTROL_BYTES)] + [b"\xff" * 50, field(1, 1) * 500, b""]


def control(sender, packets):
    """Writes packets as `sender`, "core" or "supervisor". Nobody dies and nothing changes."""
    def act(trial):
        world = trial.world
        before = world.processes()
        found = procs.packet_sockets(before[sender]["pid"] if sender == "core" else world.supervisor_pid, world.supervisor_pid)
        if not found:
            raise Broken("the control channel was not found")
        for channel in found:
            for packet in packets(trial, before):
                with contextlib.suppress(BlockingIOError):
                    channel.send(packet, socket.MSG_DONTWAIT)
            channel.close()
        time.sleep(0.1)
        now = world.wait_ready()
        told = ("generation", "pid", "restarts", "lastExit")
        changed = [name for name in before if [now.get(name, {}).get(key) for key in told] != [before[name].get(key) for key in told]]
        if changed:
            raise Broken(f"nonsense on the control channel changed {changed}: {now}")
        trial.back(time.monotonic())
    return act


def past_core(_trial, now):
    """A valid order, of a core that is gone."""
    return [order(int(now["core"]["generation"]) + 7, KILL, "mcp", int(now["mcp"]["generation"]))]


def past_module(_trial, now):
    """A valid order for a generation that is gone."""
    return [order(int(now["core"]["generation"]), KILL, "mcp", int(now["mcp"]["generation"]) + 9)]


def past_news(_trial, now):
    """News to the core: the end of a generation that is gone, and of a living one from the supervisor of another core."""
    core, module = int(now["core"]["generation"]), int(now["mcp"]["generation"])
    return [order(core, EXITED, "mcp", module - 1), order(core + 7, EXITED, "mcp", module)]


def noisy(trial, _now):
    return noise(trial.rng)[:-1]


# ---- the sockets between core and modules ----

def accepted_from(pid, path):
    """The connections that `pid` accepted on its listener `path`."""
    found = []
    for one in procs.sockets(pid):
        name = b""
        with contextlib.suppress(OSError):
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0 and one.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM:
                name = one.getsockname()
        name = name if isinstance(name, str) else name.decode(errors="replace")
        if name.rstrip("~").endswith(path):
            found.append(one)
        else:
            one.close()
    return found


def ends(world, module, socket_name, side):
    """The sockets of one side of a connection between core and module."""
    path = f"core/spi/{module}/grpc.sock" if socket_name == "SPI" else f"modules/{module}/runtime.sock"
    client = module if socket_name == "SPI" else "core"
    pid = world.pid(side)
    return procs.connected_to(pid, path) if side == client else accepted_from(pid, path)


def write_noise(one, rng):
    with contextlib.suppress(OSError):
        one.send(rng.randbytes(3000), socket.MSG_DONTWAIT)


def cut(one, _rng):
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


def half(one, _rng):
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_WR)


def channel(do, socket_name, from_module):
    """Does something to a connection; both ends live on and find each other again."""
    def act(trial):
        world, module = trial.world, trial.scenario.victim
        judged = (do, socket_name, from_module) == (write_noise, "runtime", True)  # it speaks nonsense itself: it is ended for that
        trial.hits = {module, f"answers {module}"} if judged else {f"channel {module}"}
        before = world.processes()
        found = ends(world, module, socket_name, module if from_module else "core")
        if not found:
            raise Broken(f"no {socket_name} connection of {module} was found")
        for one in found:
            do(one, trial.rng)
            one.close()
        moment = time.monotonic()
        trial.back(moment)
        now = world.wait_ready()
        changed = [name for name in before if now[name].get("pid") != before[name].get("pid")]
        if changed and not (judged and changed == [module]):
            raise Broken(f"a damaged connection ended {changed}")
    return act


# ---- the public doors and the operators' ----

def public(trial):
    """Nonsense, half requests and floods at the victim's door; whoever behaves is served meanwhile."""
    world = trial.world
    with contextlib.ExitStack() as stack:
        for number in range(60):
            one = stack.enter_context(Connection(("127.0.0.1", world.ports[trial.scenario.victim])))
            with contextlib.suppress(OSError):
                one.send_bytes(trial.rng.randbytes(400) if number % 2 else b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        time.sleep(0.1)
    trial.back(time.monotonic())


def operators(trial):
    """Nonsense on the operators' sockets and on the notification socket."""
    run = trial.world.gateway.run
    for name in ("admin.sock", "admin.http.sock"):
        for data in (trial.rng.randbytes(500), b"POST / HTTP/1.1\r\n\r\n", b"\x00" * 5000):
            with Connection(str(run / "core" / name)) as one, contextlib.suppress(OSError):
                one.send_bytes(data)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        for data in (b"READY=1\nWATCHDOG=1", b"STOPPING=1", os.urandom(2000), b""):
            stranger.sendto(data, str(run / "notify.sock"))
    trial.back(time.monotonic())


# ---- what a module answers ----

def answers(how):
    def act(trial):
        world = trial.world
        world.steer(invoke=how)
        try:
            time.sleep(0.3)
        finally:
            reset(world)
        if how == "partial_then_death":
            trial.hits |= {"odd"}
        trial.back(time.monotonic())
    return act


def needs_descriptors():
    return procs.may_duplicate()


NOBODY = frozenset()
SCENARIOS = [
    Scenario("noise to supervisor from", "core", "ready", control("core", noisy), hits=NOBODY, needs=needs_descriptors),
    Scenario("order of a past core from", "core", "ready", control("core", past_core), hits=NOBODY, needs=needs_descriptors),
    Scenario("order for a past module from", "core", "ready", control("core", past_module), hits=NOBODY, needs=needs_descriptors),
    Scenario("empty packet from", "core", "ready", control("core", lambda *_: [b""]), hits=NOBODY, needs=needs_descriptors),
    Scenario("noise to core from", "supervisor", "ready", control("supervisor", noisy), hits=NOBODY, needs=needs_descriptors),
    Scenario("news of a past module from", "supervisor", "ready", control("supervisor", past_news), hits=NOBODY, needs=needs_descriptors),
    Scenario("empty packet from", "supervisor", "ready", control("supervisor", lambda *_: [b""]), hits=NOBODY, needs=needs_descriptors),
    *(Scenario(f"{do.__name__.replace('write_', '')} on {name} from {'module' if side else 'core'}:", module, "ready", channel(do, name, side),
               needs=needs_descriptors)
      for name in ("SPI", "runtime") for module in ("mcp", "rest") for do in (write_noise, cut, half) for side in (True, False)),
    *(Scenario("noise at the door of", name, "ready", public, hits=NOBODY) for name in ("mcp", "hello")),
    Scenario("noise at the sockets of", "core", "ready", operators, hits=NOBODY),
    *(Scenario(f"answers {how}", "odd", "ready", answers(how), world="odd", hits=frozenset({"answers odd"}), bound_s=8) for how in ANSWERS),
]
