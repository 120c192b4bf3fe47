"""Reports of the sanitizers in what processes wrote: a test whose gateway leaves one behind fails (build with GATEHOUSE_SANITIZE)."""
import functools
import re

from . import BUILD

REPORT = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:")
CONTEXT_LINES = 40


@functools.cache
def sanitized():
    """Whether the programs were built with a sanitizer: what its runtime needs cannot be confined then."""
    cache = BUILD / "CMakeCache.txt"
    return cache.exists() and re.search(r"^GATEHOUSE_SANITIZE:\w+=.+$", cache.read_text(), re.M) is not None


def reports(text):
    """The first report in `text` with the lines behind it, or None."""
    lines = text.splitlines()
    first = next((index for index, line in enumerate(lines) if REPORT.search(line)), None)
    return None if first is None else "\n".join(lines[max(0, first - 2):first + CONTEXT_LINES])
