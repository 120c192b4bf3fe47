"""Shell completion of the operator CLI: the function that each shell is given, as that shell runs it, with a gateway and without."""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

from harness import BIN
from harness.processes import wait_until
from test_lifecycle import kill_until_quarantined, wait_state

SCRIPT = """
source <("$0" completion bash) || exit 9
COMP_WORDS=("$0" "$@"); COMP_CWORD=$#; COMPREPLY=()
_gatehouse gatehouse "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def complete(gateway, *words):
    env = gateway.env if gateway else {"PATH": "/usr/bin:/bin", "GATEHOUSE_RUN": "/nonexistent/run"}
    out = subprocess.run(["bash", "-c", SCRIPT, BIN / "gatehouse", *words], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert out.returncode == 0 and not out.stderr, out
    return out.stdout.split()


def answered(gateway, *words):
    """The same, of a gateway that has something to say: nothing is said when it did not answer in its 400 ms."""
    return wait_until(lambda: complete(gateway, *words), f"candidates for {words}")


def test_ids_are_those_that_the_command_can_do_something_with(own_gateway):
    assert answered(own_gateway, "module", "describe", "") == ["supervisor", "core", "mcp", "rest"]
    assert answered(own_gateway, "module", "restart", "") == ["mcp", "rest"]
    assert answered(own_gateway, "module", "upgrade", "c") == ["core"]
    assert complete(own_gateway, "module", "release", "") == complete(own_gateway, "module", "start", "") == []
    own_gateway.ctl("module", "stop", "mcp")
    wait_state(own_gateway, "mcp", "stopped")
    assert answered(own_gateway, "module", "start", "") == ["mcp"] and answered(own_gateway, "module", "stop", "") == ["rest"]
    kill_until_quarantined(own_gateway, "rest")
    assert answered(own_gateway, "module", "release", "") == ["rest"] and complete(own_gateway, "module", "restart", "") == []


def test_versions_kinds_names_and_tokens_are_asked_of_the_gateway(own_gateway):
    version = own_gateway.processes()["rest"]["version"]
    assert answered(own_gateway, "module", "upgrade", "rest", "--to", "") == [version]
    assert answered(own_gateway, "module", "upgrade", "core", "--to", "=", "") == [version]  # as bash cuts --to=
    own_gateway.apply("kind: Team\nmetadata: {name: spelunkers}\nspec: {}\n---\nkind: Team\nmetadata: {name: $(reboot)}\nspec: {}\n", check=False)
    own_gateway.apply("kind: Team\nmetadata: {name: spelunkers}\nspec: {}\n")
    assert "spelunkers" in answered(own_gateway, "delete", "Team", "")
    assert answered(own_gateway, "token", "create", "--team", "spel") == ["spelunkers"]
    assert not any("reboot" in word for word in answered(own_gateway, "delete", "Team", ""))


def test_the_kinds_are_those_of_the_catalog():
    table = pathlib.Path(__file__, "../../../core/catalog/kinds.def").resolve().read_text()
    assert complete(None, "export", "") == re.findall(r"^CATALOG_DOCUMENT_KIND\((\w+),", table, re.MULTILINE)


def test_without_a_gateway_and_with_one_that_hangs_it_is_silent_and_soon(own_gateway):
    began = time.monotonic()
    assert complete(None, "module", "restart", "") == [] and complete(None, "module", "re") == ["restart", "release"]
    core = own_gateway.kill("core", signal.SIGSTOP)
    try:
        assert complete(own_gateway, "module", "restart", "") == []
        assert time.monotonic() - began < 20  # four runs of bash, and 400 ms; who waits for it waits for ever
    finally:
        os.kill(core["pid"], signal.SIGCONT)


def test_what_stands_in_the_script_is_what_bash_registers():
    out = subprocess.run(["bash", "-c", 'source <("$0" completion bash); complete -p gatehouse', BIN / "gatehouse"], capture_output=True,
                         text=True, timeout=30, check=True)
    assert out.stdout == "complete -F _gatehouse gatehouse\n"


@pytest.mark.parametrize("words", [["apply", "-f", ""], ["module", "configure", "mcp", "--file", ""], ["module", "upgrade", "mcp", "--to", "/"]])
def test_files_are_left_to_the_shell(words):
    assert complete(None, *words) == []
    out = subprocess.run([BIN / "gatehouse", "complete", "--", *words], capture_output=True, text=True, timeout=30, check=True)
    assert out.stdout == ":files\n"


# zsh completes in its line editor only: what the function would hand over is printed instead.
ZSH = """
compdef() { [[ "$*" == "_gatehouse gatehouse" ]] || exit 9 }
compadd() { shift; print -l -- "$@" }
_files() { print :files }
path=(${0:h} $path)
source <(gatehouse completion zsh)
words=(gatehouse "$@"); CURRENT=$#words
_gatehouse
"""
FISH = """
set -x PATH (dirname $argv[1]) $PATH
gatehouse completion fish | source
complete -C "gatehouse $argv[2]"
"""


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh")
def test_zsh_completes_the_same(own_gateway):
    def complete_zsh(*words):
        out = subprocess.run(["zsh", "-fc", ZSH, BIN / "gatehouse", *words], env=own_gateway.env, capture_output=True, text=True, timeout=30, check=False)
        assert out.returncode == 0 and not out.stderr, out
        return out.stdout.split()
    assert complete_zsh("module", "restart", "") == ["mcp", "rest"] and complete_zsh("module", "re") == ["restart", "release"]
    assert complete_zsh("apply", "-f", "") == [":files"] and complete_zsh("no", "such", "") == []


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish")
def test_fish_completes_the_same(own_gateway, tmp_path):
    def complete_fish(line):
        out = subprocess.run(["fish", "--no-config", "-c", FISH, BIN / "gatehouse", line], env={**own_gateway.env, "HOME": str(tmp_path)}, cwd=tmp_path,
                             capture_output=True, text=True, timeout=30, check=False)
        assert out.returncode == 0 and not out.stderr, out
        return [line.partition("\t")[0] for line in out.stdout.splitlines()]
    (tmp_path / "some.yaml").touch()
    assert sorted(complete_fish("module restart ")) == ["mcp", "rest"] and sorted(complete_fish("module re")) == ["release", "restart"]
    assert complete_fish("apply -f so") == ["some.yaml"] and complete_fish("no such ") == []
