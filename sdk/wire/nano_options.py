"""nano_options.py DESCRIPTOR_SET OUT_DIR [FILE…]: a nanopb .options file for each proto file of the set (or those named).

Every string, bytes, repeated and message field, and every message, string or bytes member of a oneof, becomes a pointer, so
that messages have no bounds of their own and may be recursive; plain scalars and enums stay values. The size of a message
is bounded where it is received. A file is rewritten only when its content changes.

Debian's nanopb counts bytes in 16 bits (built without PB_FIELD_32BIT), so a `bytes` field ends at 65535; a string has no such
bound. Fields that hold text by contract (JSON, protocol messages) are therefore C strings in nanopb: the same on the wire.
Text cannot hold a NUL byte; one that a peer sends all the same cuts the text there, and the JSON check refuses the rest.
"""
import os
import sys

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorSet

POINTER_TYPES = (Field.TYPE_STRING, Field.TYPE_BYTES, Field.TYPE_MESSAGE)

TEXT_FIELDS = ("core.spi.session.v1.SessionEvent.data", "core.spi.session.v1.AppendEventRequest.data")


def is_text(path):
    return path.endswith("_json") or path in TEXT_FIELDS


def lines_of(prefix, message):
    for field in message.field:
        if field.label == Field.LABEL_REPEATED or field.type in POINTER_TYPES:
            path = f"{prefix}{message.name}.{field.name}"
            text = field.type == Field.TYPE_BYTES and is_text(path)
            yield f"{path} type:FT_POINTER{' type_override:TYPE_STRING' if text else ''}"
    for nested in message.nested_type:
        yield from lines_of(f"{prefix}{message.name}.", nested)


def write_if_changed(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.exists(path) and open(path, encoding="utf-8").read() == text:
        return
    with open(path, "w", encoding="utf-8") as out:
        out.write(text)


def main():
    files = FileDescriptorSet.FromString(open(sys.argv[1], "rb").read()).file
    for file in files:
        if sys.argv[3:] and file.name not in sys.argv[3:]:
            continue
        prefix = file.package + "." if file.package else ""
        lines = [line for message in file.message_type for line in lines_of(prefix, message)]
        path = os.path.join(sys.argv[2], file.name[:-len(".proto")] + ".options")
        write_if_changed(path, "\n".join(lines) + "\n")


main()
