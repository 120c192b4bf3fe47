#!/usr/bin/env python3
"""Writes docs/permissions.md from core/policy/{permissions,roles}.def (SPI-20)."""
import page

INTRO = """# Roles and permissions

Generated from `core/policy/permissions.def` and `core/policy/roles.def` by `docs/generate/permissions.py`; do not edit.

A permission that is not in this table is granted to nobody, whatever pattern a role holds. How roles, teams and token scopes work
together: [policies.md](policies.md).
"""


def holds(pattern, permission):
    return pattern == "*" or pattern == permission or (pattern.endswith(".*") and permission.startswith(pattern[:-1]))


def render():
    permissions = sorted(text for _name, text in page.rows("core/policy/permissions.def", "PERMISSION"))
    names = dict(page.rows("core/policy/permissions.def", "PERMISSION"))
    aliases = {}
    for text, name in page.rows("core/policy/permissions.def", "PERMISSION_ALIAS"):
        aliases.setdefault(names[name], []).append(text)
    roles = {}
    for name, contained, *patterns in page.rows("core/policy/roles.def", "ROLE"):
        roles[name] = (contained, patterns)
    def granted(role, permission):
        contained, patterns = roles[role]
        return any(holds(pattern, permission) for pattern in patterns) or (contained != "NULL" and granted(contained, permission))
    for role, (contained, patterns) in roles.items():
        for pattern in patterns:
            if not any(holds(pattern, permission) for permission in permissions):
                page.fail(f"role {role}: {pattern} grants nothing")
        if contained != "NULL" and contained not in roles:
            page.fail(f"role {role} contains {contained}, which is not there")
    out = [*INTRO.splitlines(), "", "## Built-in roles", ""]
    out += page.table(("role", "contains", "permissions"),
                      [(f"`{name}`", f"`{contained}`" if contained != "NULL" else "", ", ".join(f"`{p}`" for p in patterns))
                       for name, (contained, patterns) in roles.items()])
    out += ["", "## Who has which permission", "",
            "The second column is another name that tokens and roles may use for the same thing.", ""]
    out += page.table(("permission", "also", *(f"`{role}`" for role in roles)),
                      [(f"`{text}`", ", ".join(f"`{alias}`" for alias in aliases.get(text, ())),
                        *("yes" if granted(role, text) else "" for role in roles)) for text in permissions])
    return out


page.main(render, "docs/permissions.md")
