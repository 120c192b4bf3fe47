"""Results of a measurement in a page of docs/: what a reader needs to judge them, and the place between two marks where they stand."""
import datetime
import os
import platform

from . import ROOT


def percentile(values, share):
    ordered = sorted(values)
    return ordered[int((len(ordered) - 1) * share)]


def machine():
    """Facts that a reader needs to judge absolute numbers."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.machine())
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(next(line for line in file if line.startswith("MemTotal")).split()[1])
    with open("/etc/os-release", encoding="utf-8") as file:
        system = next(line.split("=", 1)[1].strip().strip('"') for line in file if line.startswith("PRETTY_NAME"))
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "memory_mb": memory // 1024, "kernel": platform.release(), "system": system,
            "load": os.getloadavg()[0]}


def measured(facts):
    """The sentence with the day and the machine, its facts as machine() found them at the start."""
    return (f"Measured {datetime.date.today().isoformat()} on {facts['cpu']}, {facts['cores']} cores, {facts['memory_mb']} MB, {facts['system']}, "
            f"Linux {facts['kernel']}; load average at the start {facts['load']:.1f}.")


def rewrite(name, begin, end, change):
    """Replaces what stands between two marks of a page of docs/. change: from the old text to the new one."""
    page = ROOT / "docs" / name
    head, rest = page.read_text(encoding="utf-8").split(begin)
    old, tail = rest.split(end)
    page.write_text(f"{head}{begin}\n\n{change(old)}\n{end}{tail}", encoding="utf-8")
