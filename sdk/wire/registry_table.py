"""registry_table.py DESCRIPTOR_SET OUT: every message and method as table rows for wire_registry.c, sorted by name.

protobuf-c's own service descriptors carry no streaming flags; these rows do.
"""
import sys

from google.protobuf.descriptor_pb2 import FileDescriptorSet


def c_symbol(full_name):
    """The lower-case name that protoc-gen-c gives: package.CamelCase -> package__camel_case."""
    pieces = []
    for piece in full_name.split("."):
        out, was_upper = "", True
        for char in piece:
            if char.isupper() and not was_upper:
                out += "_"
            out += char.lower()
            was_upper = char.isupper()
        pieces.append(out)
    return "__".join(pieces)


def messages_of(prefix, messages):
    for message in messages:
        yield prefix + message.name
        yield from messages_of(prefix + message.name + ".", message.nested_type)


def main():
    files = FileDescriptorSet.FromString(open(sys.argv[1], "rb").read()).file
    out = [f'#include "wire/pbc/{file.name[:-len(".proto")]}.pb-c.h"' for file in files]
    names = sorted(name for file in files for name in messages_of(file.package + ".", file.message_type))
    out.append("static const struct message_row MESSAGES[] = {")
    out += [f'  {{"{name}", &{c_symbol(name)}__descriptor}},' for name in names]
    out += ["};", "static const struct wire_method METHODS[] = {"]
    rows = []
    for file in files:
        for service in file.service:
            full = f"{file.package}.{service.name}"
            for method in service.method:
                take, give = c_symbol(method.input_type[1:]), c_symbol(method.output_type[1:])
                rows.append(f'  {{"/{full}/{method.name}", "{full}", "{method.name}", &{take}__descriptor, '
                            f"&{give}__descriptor, {str(method.client_streaming).lower()}, "
                            f"{str(method.server_streaming).lower()}}},")
    out += sorted(rows) + ["};"]
    with open(sys.argv[2], "w", encoding="utf-8") as target:
        target.write("\n".join(out) + "\n")


main()
