"""YAML from end to end: what is wrong with a configuration or with documents is said with its place and a stable code, all at once,
and nothing of it takes effect."""
import json
import subprocess

import pytest

from harness import BIN, gateway as gateways


def check(tmp_path, text):
    path = tmp_path / "gatehouse.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return subprocess.run([BIN / "gatehouse", "config", "check", "--config", path], capture_output=True, text=True, timeout=30,
                          check=False, errors="replace")


CONFIGS = {
    "an unknown key": ("version: 1\nmodules:\n  - id: mcp\n    restrat: never\n", ":4:5:", "config.key.unknown", "restart"),
    "an unknown key at the top": ("version: 1\nlisteneres: []\n", ":2:1:", "config.key.unknown", "listeners"),
    "a list for a mapping": ("version: 1\nstore: [sqlite]\n", ":2:", "config.", "store"),
    "a text for a number": ("version: 1\nlisteners:\n  - name: mcp\n    port: many\n", ":4:11:", "config.type", "port"),
    "a number out of range": ("version: 1\nlisteners:\n  - name: mcp\n    port: 70000\n", ":4:11:", "config.value", "65535"),
    "another choice": ("version: 1\nstore:\n  backend: oracle\n", ":3:12:", "config.", "sqlite"),
    "a listener that is not there": ("version: 1\nmodules:\n  - id: mcp\n    listeners: [nowhere]\n", ":3:", "config.value", "nowhere"),
    "a module twice": ("version: 1\nmodules:\n  - id: rest\n    family: rest-grpc\n  - id: rest\n    family: rest-grpc\n", ":5:", "config.value", "rest"),
    "a key twice": ("version: 1\nversion: 1\n", ":2:1:", "config.", "version"),
    "a tab": ("version: 1\nstore:\n\tbackend: sqlite\n", ":3:", "config.syntax", ""),
    "not closed": ("version: 1\nmodules: [\n", ":", "config.syntax", ""),
    "bad UTF-8": (b"version: 1\nrun_dir: \xff\xfe\n", ":", "config.syntax", ""),
    "two documents": ("version: 1\n---\nversion: 1\n", ":", "config.syntax", ""),
    "a version of the future": ("version: 2\n", ":1:10:", "config.value", "version"),
}


@pytest.mark.parametrize("row", CONFIGS)
def test_a_wrong_configuration_is_explained(tmp_path, row):
    text, place, code, word = CONFIGS[row]
    out = check(tmp_path, text)
    assert out.returncode == 100, out
    lines = [line for line in out.stderr.splitlines() if "gatehouse.yaml" in line]
    assert any(place in line and code in line and word in line for line in lines), out.stderr


def test_every_problem_is_said_at_once(tmp_path):
    out = check(tmp_path, "version: 1\nstoer: 1\nlog:\n  level: loud\nlisteners:\n  - name: mcp\n    port: x\n")
    assert len([line for line in out.stderr.splitlines() if "gatehouse.yaml:" in line]) == 3, out.stderr


def test_the_gateway_does_not_start_with_a_wrong_configuration(tmp_path):
    path = tmp_path / "gatehouse.yaml"
    path.write_text("version: 1\nmodulse: []\n")
    out = subprocess.run([BIN / "gatehouse", "up", "--config", path], capture_output=True, text=True, timeout=30, check=False)
    assert out.returncode == 100 and "config.key.unknown" in out.stderr


def test_a_good_configuration_is_taken(tmp_path):
    assert check(tmp_path, (gateways.QUICKSTART / "gatehouse.yaml").read_text()).returncode == 0


TOOL = """kind: Tool
metadata: {{name: {name}, visibility: public, owner: admin@example.com}}
spec:
  inputSchemaJson: {{type: object}}
  rest: {{method: GET, url: "http://127.0.0.1:1/"}}
"""

DOCUMENTS = {
    "no YAML": ("kind: [", "apply.yaml:", None),
    "a tab": ("kind: Tool\nmetadata:\n\tname: a\n", "apply.yaml:7:1", "config.syntax"),
    "an unknown kind": ("kind: Toll\nmetadata: {name: a}\nspec: {}\n", "Toll", None),
    "no kind": ("metadata: {name: a}\nspec: {}\n", "kind", None),
    "no name": ("kind: Team\nmetadata: {}\nspec: {}\n", "name", None),
    "an unknown key": (TOOL.format(name="bad_tool").replace("method:", "methd:"), "methd", "argument.invalid"),
    "a wrong type": (TOOL.format(name="bad_tool") + "  timeoutMs: soon\n", "timeout_ms", "argument.invalid"),
    "a schema that is none": (TOOL.format(name="bad_tool").replace("{type: object}", "{type: thing}"), "", "catalog.record.invalid"),
    "a team that is not there": ("kind: User\nmetadata: {name: a@example.com}\nspec: {teams: [nowhere]}\n", "nowhere", "catalog.reference.missing"),
    "a key twice": ("kind: Team\nkind: Team\nmetadata: {name: a}\nspec: {}\n", "kind", None),
    "a list": ("- kind: Team\n", "", None),
    "too deep": ("kind: Tool\nmetadata: {name: a}\nspec: " + "[" * 200 + "]" * 200 + "\n", "", None),
}


@pytest.mark.parametrize("row", DOCUMENTS)
def test_wrong_documents_change_nothing(gateway, row):
    text, word, code = DOCUMENTS[row]
    before = gateway.ctl("export").stdout
    good = "kind: Team\nmetadata: {name: never-made}\nspec: {}\n---\n"
    out = gateway.apply(good + text, check=False)
    assert out.returncode in (1, 100), (out.stdout, out.stderr)
    assert word in out.stderr and (code is None or code in out.stderr), out.stderr
    assert gateway.ctl("export").stdout == before


def test_problems_of_documents_name_file_and_line(gateway):
    out = gateway.apply("kind: Team\nmetadata: {name: a}\nspec: {}\n---\n" + TOOL.format(name="bad_tool") + "  timeoutMs: soon\n", check=False)
    assert out.returncode != 0 and "apply.yaml:" in out.stderr, out.stderr


def test_a_dry_run_says_the_same_and_changes_nothing(gateway):
    before = gateway.ctl("export").stdout
    out = gateway.apply("kind: Team\nmetadata: {name: dry}\nspec: {}\n", "--dry-run", "--output", "json")
    assert "dry" in json.dumps(json.loads(out.stdout)) and gateway.ctl("export").stdout == before
