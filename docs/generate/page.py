"""page.py: what the scripts that generate pages share: reading X-macro tables and .proto comments, writing or checking a page.

A script calls page.main(render, "docs/name.md"); then
  name.py           writes the page
  name.py --check   exits 1 when the page is not what would be written
Standard library only.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|([()]|,)|([^\s,()"]+)')


def fail(message):
    sys.exit(f"{pathlib.Path(sys.argv[0]).name}: {message}")


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def rows(path, macro):
    """[[argument]] of every MACRO(...) of a table, in order; texts without their quotes, neighbouring literals joined."""
    source = re.sub(r"/\*.*?\*/", "", read(path), flags=re.S)
    found = []
    for start in re.finditer(rf"^{macro}\(", source, re.M):
        arguments, current, depth = [], [], 1
        for token in TOKEN.finditer(source, start.end()):
            text, mark, word = token.groups()
            if mark == "(":
                depth += 1
            elif mark == ")":
                depth -= 1
            if depth == 0 or (mark == "," and depth == 1):
                arguments.append(" ".join(current) if not all(c.startswith('"') for c in current)
                                 else "".join(c[1:] for c in current))
                current = []
                if depth == 0:
                    break
            elif text is not None:
                current.append('"' + text)
            else:
                current.append(mark or word)
        else:
            fail(f"{path}: a row of {macro} does not end")
        found.append(arguments)
    if not found:
        fail(f"{path} has no row of {macro}")
    return found


def services(path):
    """[(service, comment, [(method, comment, request, response)])] of a .proto file; streams keep their word."""
    package, found, comment = None, [], []
    for line in read(path).splitlines():
        line = line.strip()
        if line.startswith("//"):
            comment.append(line[2:].strip())
            continue
        if match := re.match(r"package ([\w.]+);", line):
            package = match[1]
        elif match := re.match(r"service (\w+)", line):
            found.append((f"{package}.{match[1]}", " ".join(comment), []))
        elif match := re.match(r"rpc (\w+)\(([\w. ]+)\) returns \(([\w. ]+)\)", line):
            found[-1][2].append((match[1], " ".join(comment), match[2], match[3]))
        comment = []
    return found


def cell(text):
    return text.replace("|", "\\|").replace("\n", " ")


def table(head, lines):
    """Lines of a Markdown table."""
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head),
            *("| " + " | ".join(cell(item) for item in line) + " |" for line in lines)]


def main(render, path):
    if sys.argv[1:] not in ([], ["--check"]):
        fail("the only argument is --check")
    text = "\n".join(render()) + "\n"
    page = ROOT / path
    if not sys.argv[1:]:
        page.write_text(text, encoding="utf-8")
    elif not page.exists() or page.read_text(encoding="utf-8") != text:
        fail(f"{path} is stale: run docs/generate/{pathlib.Path(sys.argv[0]).name}")
