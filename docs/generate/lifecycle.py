#!/usr/bin/env python3
"""Writes docs/lifecycle.md from core/lifecycle/{states,events,transitions,death_causes}.def (LIF-*)."""
import page

FOLDER = "core/lifecycle"
INTRO = """# The lifecycle of a module

Generated from `core/lifecycle/{states,events,transitions,death_causes}.def` by `docs/generate/lifecycle.py`; do not edit.

The core keeps one state machine per module instance. An instance is a module id with a generation: the number of its start, never
given twice. The same table serves modules that the supervisor starts and modules that attach by themselves. A pair that is not in
the table is forbidden: it is logged and changes nothing (`core/lifecycle/machine.c`). Every transition is logged with its cause,
kept in the module's history (`gatehouse module describe <id>`), and recorded in the state graph.

How an instance gets through (`core/lifecycle/instance.c`):

1. **discovered**: its runtime socket appeared below `modules/` in the run directory; the core dials it and calls `Describe`.
2. **registered**: the [descriptor](writing-a-module.md#the-descriptor) was accepted: id, SPI version, SPI families, release policy.
3. **initializing**: `Initialize` hands over the configuration, the channel secret and the canary credential.
4. **warming**: the module took the configuration; the core follows its `grpc.health.v1.Health/Watch`.
5. **ready**: the module reports every condition of readiness met, is healthy, and the core itself saw it being refused with the canary.
   Listening alone is not ready. Only now calls are routed to it.
6. **degraded**: it was ready and a condition fails now; it is not given new work, and comes back by itself.
7. **draining**, **stopping**, **stopped**: it was asked to finish, reports that nothing is in flight, and ends.

An instance that is refused, lost or late becomes **failed**. One that was refused or late is ended, since it would stay so for ever; a
lost connection is dialled again. What follows is the supervisor's restart policy: **backoff** until the next start; see
[operating.md](operating.md#when-something-dies). **quarantined** is a module that keeps failing: it is held down until a
trial start, or until an operator releases it. **rolling-back** is an instance whose place an earlier version takes.

## Between two lives

A call for a protocol family that nobody serves waits (`core/dispatch/hold.c`) while a module of it is between two lives: its process died
and is started again within `dispatch.hold_ms`, a restart was ordered, or its newest instance is on its way to *ready*
(`lifecycle_family_returns`). It goes on the moment that instance is *ready*, and is refused as it would have been at once when that takes
longer than `dispatch.hold_ms`; its own deadline, and its caller's wish to end it, count meanwhile, and whoever's credential was taken back
does not go on. It is refused at once when the module is *quarantined*, was stopped, drains, is *degraded*, pauses longer, is left down, or
died twice in a row before it was ready.

A call whose module dies under it goes on elsewhere where that is sound, once (`sent_again` in `core/dispatch/dispatch.c`): to the other version
of an upgrade, or to the next life as above.

| the module | the call |
|---|---|
| refused it, since it drains | has not begun: repeated |
| died, or its connection ended, before any byte of it went into its socket (`core/rpc/socket_calls.c` counts them) | has not begun: repeated |
| died later, and the tool's document says `readOnlyHint` or `idempotentHint` (`spec.annotationsJson`) | may have begun, which does no harm: repeated, when no item of its answer has come |
| died later, any other | may have begun: `rpc.peer.gone`, retryable, and it is for the caller to know whether repeating it is right |
| had answered before it died | that answer: it is read before the connection counts as ended |

What an upstream MCP server says of its own tools is not believed here. A call that kills whoever carries it out so kills two at most.

A core that dies takes calls along too. The MCP module lets them wait for the next one, at most `coreWaitMs`, and asks that one again, once, while
nothing of an answer has left for the client: questions and calls that were not begun as they were, a call that may have been begun with
`InvocationEnvelope.may_have_begun` set. Then the core carries it out only where that does no harm, by the same words of the document, and answers
`rpc.peer.gone` elsewhere; so does the module when no core that knows this comes in time. A batch does not wait, nor does a request whose event stream
has begun, nor the end of a session; `initialize` waits only when it was not begun.

## Deaths

A death that nobody ordered is an *incident* when that instance had been ready, else it speaks against the version: a *bad version*. The
history and the status say which, also when a new core has taken the place of the one that saw it ready; metrics count them by cause (`core/lifecycle/account.c`):

CAUSES

*Memory limit* is exit status 112, or a SIGKILL that the kernel has counted in `memory.events` of the module's control group
(`supervisor/sandbox_cgroup.c`). Without such a group a kill by the kernel is a *signal*, as every other.

More than `quarantine.deaths` (5) of them within `quarantine.window_ms` (60 s), or `quarantine.late_starts` (2) starts in a row that were
not ready in `start_timeout_ms`, and the module is quarantined (LIF-8). That is a line of the log at level error, the metric
`gatehouse_module_quarantined`, an event of the state graph, the status, and an [alert](operating.md#alerts); calls to its protocol family are answered with
`module.quarantined`. The decision is kept in the store: a new core, and a new supervisor, hold it too. `gatehouse module release <id>`
ends it.

What broke a version that had been ready may have come from outside, and be gone. So it is started **on trial** after
`quarantine.retry_ms` (5 minutes; 0: never), by itself. On trial one death is enough: it is held again, for twice as long, up to an hour.
When it has been ready for `quarantine.window_ms` without one, all is forgotten. A version that never was ready stays down until an operator
acts: the same start would end the same way. `gatehouse module describe` and the status say which, and when
(`core/lifecycle/quarantine.c`).

Without a supervisor nobody tells a death from an end, so a connection that is lost counts as one.

## Probes

| probe | while | asks | when it fails |
|---|---|---|---|
| startup | *warming* | `GetReadiness`, and follows `Health/Watch` | the start has failed: the instance is ended |
| liveness | *ready*, *degraded* | `Health/Check`; any answer is a sign of life | the first time *degraded*; then it hangs: SIGABRT, so that it writes where, then SIGKILL; the restart policy follows |
| readiness | *ready*, *degraded* | `GetReadiness`, and follows `Health/Watch` | *degraded*: no new work; it comes back by itself |

Interval, timeout and both thresholds of each are keys of the module's [configuration](configuration.md), `probes.…`. What a module says
of its own readiness counts at once; thresholds count missing answers.

A module made with `sdk/module` does not wait to be probed: when its loop has not turned for `hang_ms` it writes where it hangs and ends with
status 113, which is counted as *probe* (`sdk/base/watchdog.h`). So do the core and the supervisor.

## The end in order

`gatehouse module restart` and `stop` end an instance in steps, each only when the one before did not help: `Drain` with a deadline
(`drain_timeout_ms`, or `--drain`), in which the module refuses new requests in its protocol's form and finishes what it has; SIGTERM, or
`Shutdown` without a supervisor; SIGKILL after `stop_grace_ms`. While it drains the status says how much is in flight. `gatehouse module
drain` does only the first step.

Who has a long connection or stream is told in its protocol's way, both when a process is drained and when it hands over to another version:

| what | what is done |
|---|---|
| HTTP/1.1 connection | an idle one is closed; on a hand-over it stays for a request that is on its way. The answer under way, or the next one, says `Connection: close` |
| HTTP/2 connection | `GOAWAY` with the highest stream id and a `PING`; when that is answered, so that whatever was on its way has come, `GOAWAY` with the last id that is served. It closes with its last stream |
| MCP `GET` stream | ended, from 2025-11-25 on with `retry:`, 100 ms and one more for each stream, at random, up to 2.1 s, so that not all come together. The session is the core's, so any process has it. No event is lost, since these streams carry none |
| MCP request under way | its answer, also as a stream; what has none shortly before the deadline (a tenth of it, at most a second) gets the error `module.draining`, retryable |
| gRPC, at the end of a core | `GOAWAY`; streams without an end (`CatalogService.Watch`, `Health/Watch`, events that are followed) end with `UNAVAILABLE`, retryable: modules and `gatehouse events --follow` go on with the next core |

## A new version

`gatehouse module upgrade <id> --to PATH|VERSION` (LIF-9, `core/lifecycle/upgrade.c`). A module has one process, and from its first upgrade on
a second one, `<id>@2` in the run directory; they take turns. The second has the same configuration, listeners, user, sandbox and limits as the
first, and another program.

A version is looked for in `versions_dir`, as `<program>-<version>` or `<version>/<program>`, and among the programs that the module ran before
(`core/lifecycle/known.c`); `gatehouse module describe` lists what can be named. An unknown version is an error that names those that there are,
one of several programs an error that names the programs. What the program says of itself, `moduleVersion` in its descriptor, must then be that
version, else it is rolled back.

1. **starting**: the supervisor starts the program in the process that is free, as a *candidate*. It goes through every phase above, up to
   the proven deny path, while the current one serves. Refused, dead, or not ready in `start_timeout_ms`: rolled back.
2. **probation**, `upgrade.probation_ms`: both accept on the same listening sockets, and calls of the core are divided between them. Ten
   times a second the core asks both for their numbers (`GetStats`) and compares what happened since the probation began.
3. **retiring**: it held. The decision is written down, the supervisor restarts the new program from now on, and the old process *hands
   over*: it stops accepting, serves what comes on open connections with `Connection: close`, and ends when they are gone or
   `drain_timeout_ms` has passed. Sessions are the core's, so whoever was served by the one is served by the other.

What ends a probation (`core/lifecycle/verdict.c`), each by itself:

| criterion | key |
|---|---|
| it died, or is not ready any more | |
| the share of its requests that failed is more than 1 percentage point above the old one's, after 20 requests and at least two failures | `upgrade.error_points`, `upgrade.error_calls` |
| its median or 95th percentile takes more than twice the old one's, and a millisecond more, after 50 requests to each | `upgrade.latency_percent`, `upgrade.latency_calls` |
| it grew by more than 256 MiB | `upgrade.memory_bytes` |
| `gatehouse module rollback <id>` | |

Failures and times are compared twice, each by itself: as the modules count them (`GetStats`), and as the core saw them, so that a version
which counts wrong or not at all is judged too (`core/lifecycle/witness.c`). The core sees the calls that it gives to a module (`Invoke`) and
the plans that the module carries out by itself, up to its `ReportInvoke`. One failed when its answer is an error of the category
`INTERNAL` or `UNAVAILABLE`, which the deadline is too, or is none that can be read, and when there is no answer, or no report, for five
seconds. What an upstream, a policy or the caller did wrong speaks against nobody. What is not seen is not judged by this: a module that is
never called is judged by its own numbers.

Then the candidate is **rolling-back**: it hands over in the same way, or is killed when it never served, and the old one has gone on as if
nothing had been. A request that a bad version took and answered badly is not repeated; of calls that it died over
[the table above](#between-two-lives) says which are.

`gatehouse module rollback <id>` without an upgrade under way goes back to the program and the configuration before by the same road, without a
probation: they have been the module's already. A program that would be quarantined, or that asks for it (a condition `holds` in its readiness
that is not met, LIF-11), goes back by itself: to the program and the configuration before, once, else to the module's `fallback`. Where there
is neither it is held down (LIF-8), or stays degraded. A fallback stays the module's program until another is given by an upgrade or by `binary`.

What was decided, when, by whom and why, is kept in the store and shown by `gatehouse module describe <id>`. Whatever dies in the middle: the
supervisor's word of which process is current counts; a candidate whose core died is rolled back; after a new start of everything the
promoted program is the module's, unless `binary` in the configuration names another one than when it was promoted: then the
configuration counts.

## A new configuration

A module's own configuration, `modules[].config`, goes the same road (SPI-15, `core/lifecycle/configure.c`): no process is given a second one in
its life, a change comes with a candidate that has the same program. It is asked in this order, and where it is refused nothing has changed:
the schema of the descriptor (by `module configure`, at once), the candidate's `Initialize`, with the module's own words, and the probation.

| what is new | what follows |
|---|---|
| `gatehouse module configure <id> --file FILE` | the file's mapping, as YAML or JSON, takes the road; without `--file` what gatehouse.yaml says |
| `config` in gatehouse.yaml, on SIGHUP | the same, by the core, which is not restarted; while another change is under way, after it. A module that does not serve gets it at once |
| `config` in gatehouse.yaml, at a start of everything | it counts at once; the one before is gone back to when it would be quarantined |
| `gatehouse module rollback <id>` | the program and the configuration before |

What was decided last counts: a configuration that was promoted by hand stays the module's, and one of gatehouse.yaml that did not hold stays
away, through every restart, until gatehouse.yaml says something else than it did then. It is the same for `binary`.

Each configuration has a revision, a number that is never given twice; history, logs and status speak of revisions only, and never of what is in
them. The configurations that are still needed (the current one, the one before, that of gatehouse.yaml) are in the store, each sealed under the
master key (`core/lifecycle/configs.c`). A configuration is promoted only when it is on disk. The supervisor knows the revision that each process
became ready with, so that a new core tells it the same once more. `GetModuleConfig` answers with the configuration of the asking process, and
`WatchModuleConfig` sends it once and stays open.

## A new program of the core

`gatehouse module upgrade core --to PATH|VERSION` (LIF-9, LIF-12, `core/lifecycle/core_upgrade.c`, `supervisor/core_program.c`). Two cores cannot
serve one store, so the new one comes in place of the old one. The modules go on: they keep their clients, let requests wait for a
moment and refuse them then in their protocol's form, and attach again by themselves. What was acknowledged is on disk, sessions are in the store.

1. **asked**: the supervisor runs the program once with `--describe`, as the core's user and in its sandbox; the core judges what it says of
   itself. A program that does not start, is no core, is of another version than was named, or writes another schema of the store is refused here, and nothing has happened.
2. **exchanged**: the core stores what is tried and which modules were ready, and the supervisor, which has prepared everything that the
   new process needs, tells it to end. It finishes what is in flight, closes the store and leaves; the new program is started at once.
3. **probation**, `core.upgrade.probation_ms` or `--probation`: watched by the supervisor, since a core that is dead judges nothing. At its end
   the core is asked whether it can stay, and has to answer.
4. **kept**: the supervisor starts this program from now on, also after a later start of everything: it is written to `core.program` in the
   state directory, which it reads without the store.

The program before is started again by itself, from an image that was kept for that, when the new one

| criterion | key |
|---|---|
| is not ready in its start timeout | `core.start_timeout_ms` |
| ends, with whatever status, also 100, 111 and 125, or is killed | |
| gives no sign of life, or no answer at the end | `core.watchdog_ms` |
| finds that a module that was ready before is not ready again in time | `core.upgrade.modules_ms` |
| is told so: `gatehouse module rollback core` | |

The core that comes back finds out from the supervisor what happened, and writes it into the history (`gatehouse module describe core`), the
state graph and the log, like every other end of an upgrade. `gatehouse module rollback core` later goes back to the program before, on the
same road but without a probation.

A program that brings the store to a newer schema cannot be taken back: the one before refuses that store. It is refused unless
`--no-rollback` is given; then it is the core's program from the moment that the old one has ended, is tried again like any core that
dies, and there is nothing before it. [Copy the store](operating.md#backup) first. A program of an older schema is always refused.

Whatever dies in the middle: a core that is killed while it leaves is replaced all the same; one that is killed on probation is taken
back; when the supervisor dies before the new program was kept, the next one starts the program before. When `core.binary` in the
configuration names another program than when one was kept, the configuration counts, and so it does when the kept one cannot be executed
any more; both are in the log and in the history. While the core is replaced a reload is refused, and the core is not replaced while a module
is being upgraded. With `store.backend: memory` everything is forgotten, as at any end of a core.
"""


def render():
    states = page.rows(f"{FOLDER}/states.def", "LIFECYCLE_STATE")
    events = page.rows(f"{FOLDER}/events.def", "LIFECYCLE_EVENT")
    moves = page.rows(f"{FOLDER}/transitions.def", "LIFECYCLE_TRANSITION")
    state_text, event_text = dict(states), dict(events)
    next_of = {(start, event): end for start, event, end in moves}
    for start, event, end in moves:
        if start not in state_text or end not in state_text or event not in event_text:
            page.fail(f"a transition names what is not there: {start}, {event}, {end}")
    causes = page.rows(f"{FOLDER}/death_causes.def", "LIFECYCLE_DEATH")
    intro = INTRO.replace("CAUSES", ", ".join(f"*{text}*" for _, text in causes) + ".")
    out = [*intro.splitlines(), "", "## States and transitions", "", "```mermaid", "stateDiagram-v2",
           f"    [*] --> {states[0][1]}"]
    joined = {}
    for start, event, end in moves:
        joined.setdefault((start, end), []).append(event_text[event])
    out += [f"    {state_text[start]} --> {state_text[end]}: {', '.join(texts)}" for (start, end), texts in joined.items()]
    out += ["```", "", "## The table", "",
            "Rows are states, columns are events; an empty cell is forbidden. A new instance begins at "
            f"*{states[0][1]}*; *backoff* and *quarantined* end with the next instance.", ""]
    used = [event for event, _ in events if any(event == move[1] for move in moves)]
    lines = [[text, *(state_text.get(next_of.get((name, event)), "") for event in used)] for name, text in states]
    return [*out, *page.table(["state", *(event_text[event] for event in used)], lines)]


page.main(render, "docs/lifecycle.md")
