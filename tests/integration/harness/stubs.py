"""The contract in Python: what protoc makes of proto/, for modules and clients that are written in it."""
import subprocess

from . import ROOT


def make(directory):
    """Writes the generated files below `directory`, which is returned."""
    files = [str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto")]
    subprocess.run(["protoc", "-I", ROOT / "proto", f"--python_out={directory}", *files], check=True, timeout=60)
    return directory
