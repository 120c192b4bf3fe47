"""The quick parts of ./dev lint as tests, and tests of the checks themselves: each must be able to fail."""
import pathlib

import pytest

import include_graph
import sources

CHECKS = {
    "every file opens with a comment on its purpose": sources.check_openings,
    "no unfinished marks, machine paths or registry addresses": sources.check_words,
    "C files are formatted": sources.check_format,
    "shell scripts are clean": sources.check_shell,
    "no file is longer than the limit": sources.check_lengths,
    "rooms include only public headers of rooms below (BND-4, BND-5)": include_graph.check_includes,
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
def test_sources(check):
    problems = check()
    assert not problems, "\n" + "\n".join(problems)


ORDER = ["sdk/base", "sdk/rpc", "sdk/http", "core/rpc", "core/store", "core/policy"]


@pytest.mark.parametrize("room, other, allowed", [
    ("core/policy", "core/store", True),
    ("core/store", "core/policy", False),
    ("core/store", "sdk/base", True),
    ("sdk/http", "core/rpc", False),
    ("sdk/base", "sdk/rpc", False),
    ("modules/mcp", "sdk/http", True),
    ("modules/mcp", "core/rpc", False),
    ("modules/mcp", "modules/rest", False),
    ("supervisor", "sdk/base", True),
    ("supervisor", "sdk/rpc", False),
    ("supervisor/ctl", "sdk/rpc", True),
    ("supervisor/ctl", "core/rpc", False),
    ("core", "core/policy", True),
    ("tests", "core/policy", True),
])
def test_include_rules(room, other, allowed):
    assert include_graph.may_see(room, other, ORDER) is allowed


@pytest.mark.parametrize("path, room", [
    ("core/store/sqlite.c", "core/store"), ("core/main.c", "core"), ("modules/mcp/wire/jsonrpc.c", "modules/mcp"),
    ("supervisor/spawn.c", "supervisor"), ("supervisor/ctl/main.c", "supervisor/ctl"), ("tests/bench/spi.c", "tests"),
])
def test_room_of(path, room):
    assert include_graph.room_of(path) == room


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A project of its own for the checks: tree({path: text}) writes it."""
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    monkeypatch.setattr(include_graph, "ROOT", tmp_path)

    def write(content):
        for path, text in content.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        return tmp_path

    return write


def test_openings_can_fail(tree):
    tree({"good.c": "/* good.c: fine. */\n", "bad.c": "int x;\n", "tool": "#!/bin/sh\necho\n", "page.md": "text\n"})
    assert {p.partition(":")[0] for p in sources.check_openings()} == {"bad.c", "tool", "page.md"}


def test_words_can_fail(tree):
    tree({"a.c": "/* TO" "DO: later */\n", "b.c": '/* "mkstemp XXXXXX" */\n', "c.md": "see /wor" "k/main/x\n"})
    assert {p.partition(":")[0] for p in sources.check_words()} == {"a.c", "c.md"}


def test_format_can_fail(tree):
    tree({"a.c": "int  main( ){return 0 ;}\n", ".clang-format": (pathlib.Path(__file__).parents[2] / ".clang-format").read_text()})
    assert sources.check_format()


def test_includes_can_fail(tree):
    tree({
        "sdk/CMakeLists.txt": "foreach(room base rpc)\n", "core/CMakeLists.txt": "foreach(room store policy)\n",
        "sdk/base/log.h": "", "core/store/store.h": "", "core/store/store_internal.h": "", "core/policy/policy.h": "",
        "core/store/store.c": '#include "core/store/store_internal.h"\n#include "core/policy/policy.h"\n',
        "core/policy/policy.c": '#include "core/store/store_internal.h"\n#include "core/store/store.h"\n',
        "modules/mcp/main.c": '#include "core/store/store.h"\n#include "sdk/base/log.h"\n',
    })
    assert sorted(p.split(" ")[0] for p in include_graph.check_includes()) == [
        "core/policy/policy.c:1:", "core/store/store.c:2:", "modules/mcp/main.c:1:"]
