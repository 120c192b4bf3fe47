#!/usr/bin/env python3
"""Writes docs/spi.md from core/spi/methods.def (the allow-list) and the comments of proto/core/spi (SPI-*)."""
import page

INTRO = """# The Core SPI

Generated from `core/spi/methods.def` and `proto/core/spi/` by `docs/generate/spi.py`; do not edit.

The SPI is what a module may ask of the core. It is gRPC over the Unix socket `core/spi/<module>.sock` in the run directory, one
socket per module; the same services with the same names are HTTP/JSON on `core/spi/<module>.http.sock`
(`POST /<service>/<method>`; streams as one JSON object a line). Every call carries the metadata `gatehouse-channel-secret`, which
the module got with its Initialize; see [writing-a-module.md](writing-a-module.md).

A call passes these doors in this order, and the first that is closed answers (`core/spi/spi.c`):

1. the channel: the socket, the peer's user and the secret belong to one living instance, else `auth.channel.denied`;
2. the family: it was granted to the module from its descriptor, else `auth.family.denied`, with an audit event;
3. the phase of the module's [lifecycle](lifecycle.md), else `module.phase.wrong`;
4. the method is built, else `unsupported`;
5. the request decodes, else `rpc.message.malformed`.

**Phases**: *initializing* is after Initialize and before ready; *serving* is ready or degraded; *draining* is after the drain order.
**Built**: `no` answers `UNSUPPORTED`; the contract is there, so that its messages do not change when it comes.
"""
PHASES = {"I": "initializing", "S": "serving", "D": "draining"}
KINDS = {"UNARY": "unary", "SERVER_STREAM": "server stream"}


def render():
    out = INTRO.splitlines()
    allowed = {}
    for service, method, kind, family, phases, _request, handler in page.rows("core/spi/methods.def", "SPI_ROW"):
        allowed[(service, method)] = (kind, family, phases.split(" | "), handler)
    seen = set()
    for path in sorted((page.ROOT / "proto/core/spi").glob("*/v1/*.proto")):
        for service, comment, methods in page.services(path.relative_to(page.ROOT)):
            lines = []
            family = None
            for method, about, _take, give in methods:
                if (service, method) not in allowed:
                    page.fail(f"{service}/{method} is in the contract and not in the allow-list")
                seen.add((service, method))
                kind, family, phases, handler = allowed[(service, method)]
                if (kind == "SERVER_STREAM") != give.startswith("stream "):
                    page.fail(f"{service}/{method}: the allow-list and the contract differ in its kind")
                lines.append((f"`{method}`", KINDS[kind], ", ".join(PHASES[phase] for phase in phases),
                              "no" if handler == "NULL" else "yes", about))
            out += ["", f"## {service.rsplit('.', 1)[1]}", "", f"`{service}`, family `{family}`. {comment}", "",
                    *page.table(("method", "kind", "phases", "built", "what it does"), lines)]
    if missing := set(allowed) - seen:
        page.fail(f"not in the contract: {sorted(missing)}")
    built = sum(1 for row in allowed.values() if row[3] != "NULL")
    return [*out, "", f"{built} of {len(allowed)} methods are built."]


page.main(render, "docs/spi.md")
