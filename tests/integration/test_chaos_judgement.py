"""How tests/chaos judges a refusal: from lines of a log, and from the two moments between which a request was asked and answered."""
import json
import pathlib
import sys

import pytest

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "chaos"))

import timeline as chaos_timeline  # noqa: E402
import world as chaos_world  # noqa: E402
from doors import REFUSED, Asked  # noqa: E402

READY = {name: {"state": "ready", "generation": str(number), "pid": number}
         for number, name in enumerate(("core", "mcp", "mcp2", "hello", "rest"), 1)}
SECOND = 1_700_000_000


def line(at_s, message, **more):
    micros = round(at_s * 1e6)
    return json.dumps({"time": f"2023-11-14T22:13:{20 + micros // 1_000_000:02}.{micros % 1_000_000:06}Z", "message": message, **more})


def gone(at_s, module, generation, to="failed"):
    return line(at_s, "transition", module=module, generation=generation, to=to)


def ready(at_s, module, generation):
    return line(at_s, "transition", module=module, generation=generation, to="ready")


def ended(at_s, module, generation, next_ms=0, signal=9):
    return line(at_s, "ended", module=module, generation=generation, next_ms=next_ms, signal=signal)


def is_excused(lines, began_s, ended_s, hits, door="mcp", killed=()):
    killed = [(pid, SECOND + first, SECOND + last) for pid, first, last in killed]
    asked = Asked(SECOND + began_s, SECOND + ended_s, REFUSED, "unavailable", 1, 1, "")
    return chaos_world.excused(chaos_timeline.Timeline(lines, READY, killed), door, asked, hits, ("mcp", "mcp2", "hello", "rest"))


REST_AWAY = [gone(1.0, "rest", 5), ended(1.0, "rest", 5)]


@pytest.mark.parametrize("back_s, began_s, ended_s, excused", [
    (1.4, 1.05, 1.31, True),    # it waited for those 250 ms, and nobody came
    (1.1, 1.05, 1.06, False),   # at once, and it was back soon
    (1.1, 1.05, 1.31, False),   # it waited, and it was back
    (1.1, 2.0, 2.3, False),     # long after
    (1.1, 0.5, 0.6, False),     # long before
    (1.4, 0.2, 1.31, True),     # asked by a process that stalled before it came to it
    (1.4, 1.05, 3.0, True),     # answered to one that stalled before it looked
])
def test_a_refusal_is_excused_when_its_module_was_away_for_as_long_as_is_waited(back_s, began_s, ended_s, excused):
    assert is_excused([*REST_AWAY, ready(back_s, "rest", 6)], began_s, ended_s, {"rest"}) is excused


def test_a_state_that_passed_between_question_and_answer_excuses():
    lines = [gone(1.0, "rest", 5, "degraded"), ready(1.1, "rest", 5)]
    assert is_excused(lines, 0.9, 1.5, {"rest"})
    assert not is_excused(lines, 1.2, 1.5, {"rest"})


def test_a_module_that_was_killed_may_be_gone_before_the_core_says_so():
    lines = [gone(1.3, "rest", 5), ready(1.4, "rest", 6)]
    assert is_excused(lines, 1.01, 1.27, {"rest"}, killed=[(5, 1.0, 1.02)])
    assert not is_excused(lines, 1.01, 1.27, {"rest"})


def test_two_lives_that_served_at_once_are_no_gap():
    lines = [ready(1.0, "rest", 6), gone(1.2, "rest", 6, "draining")]
    assert not is_excused([ready(1.0, "rest", 6)], 0.9, 1.3, {"rest"})
    assert is_excused(lines, 0.9, 1.3, {"rest"})  # one of them drained
    assert not is_excused(lines[:1] + [gone(5.0, "rest", 6)], 1.5, 1.8, {"rest"})


def test_two_deaths_without_a_life_between_them_are_not_waited_for():
    lines = [*REST_AWAY, ended(1.05, "rest", 6), ended(1.1, "rest", 7, next_ms=10), ready(1.2, "rest", 8)]
    assert is_excused(lines, 1.12, 1.13, {"rest"})
    assert not is_excused([*lines[:3], *lines[4:]], 1.12, 1.13, {"rest"})


@pytest.mark.parametrize("lines, killed", [
    ([ended(1.2, "core", 1)], [(1, 0.9, 1.1)]),                                             # killed by us, heard of late
    ([line(0.9, "told to end", process="core"), ended(1.2, "core", 1, signal=0)], []),      # it left
    ([line(1.15, "detached from the core", process="mcp"), ended(1.5, "core", 1, signal=11)], []),  # it crashed: a module noticed first
])
def test_what_was_under_way_in_a_core_that_ends_is_excused(lines, killed):
    back = [line(1.6, "ready", process="core"), *(ready(1.6, name, int(READY[name]["generation"])) for name in READY if name != "core")]
    assert is_excused([*lines, *back], 1.0, 1.03, {"core"}, door="mcp2", killed=killed)
    assert not is_excused([*lines, *back], 0.5, 0.6, {"core"}, door="mcp2", killed=killed)
    assert not is_excused([*lines, *back], 1.7, 1.8, {"core"}, door="mcp2", killed=killed)
    assert is_excused([*lines, *back], 1.55, 1.58, {"core"}, door="hello", killed=killed)
    assert not is_excused([*lines, *back], 1.7, 1.8, {"core"}, door="hello", killed=killed)


def test_a_core_that_crashes_right_after_it_was_ready_serves_nobody_until_the_next_one_does():
    lines = [ended(1.0, "core", 1), line(1.1, "ready", process="core"), ready(1.11, "hello", 4), line(1.2, "detached from the core", process="hello"),
             ended(1.25, "core", 2, signal=4), line(1.5, "ready", process="core"), ready(1.6, "hello", 4)]
    assert is_excused(lines, 1.54, 1.55, {"core"}, door="hello")
    assert not is_excused(lines, 1.7, 1.71, {"core"}, door="hello")
