"""What every file of tests/chaos begins with: the integration tests' harness, a broken promise, and words on standard error."""
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))


class Broken(Exception):
    """A promise that was not kept: the text says which, and what was seen."""


def say(text):
    print(f"chaos: {text}", file=sys.stderr, flush=True)
