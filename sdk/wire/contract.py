"""contract.py: the wire contract as text, and its checks.

  contract.py list DESCRIPTOR_SET               print the contract, one sorted line per field, enum value and method
  contract.py breaking DESCRIPTOR_SET BASELINE  fail when a line of the baseline vanished or changed
  contract.py style DESCRIPTOR_SET              fail on a part without a comment, and on what the generators cannot carry

The baseline is proto/baseline.txt. After an addition, append with
  contract.py list build/wire/gatehouse.desc > proto/baseline.txt
in the commit that adds. A removal or change never goes in: reserve the number and add a new field.
"""
import sys

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorSet

FOREIGN = ("google/protobuf/",)  # not ours to document
ALLOWED_IMPORTS = ("google/protobuf/any.proto",)
FILE_MESSAGE, FILE_ENUM, FILE_SERVICE = 4, 5, 6  # field numbers in FileDescriptorProto, for comment paths


def load(path):
    return FileDescriptorSet.FromString(open(path, "rb").read())


def type_of(field):
    return field.type_name[1:] if field.type_name else Field.Type.Name(field.type)[len("TYPE_"):].lower()


def message_lines(name, message):
    yield f"message {name}"
    for field in message.field:
        label = "repeated" if field.label == Field.LABEL_REPEATED else "singular"
        oneof = f" oneof {message.oneof_decl[field.oneof_index].name}" if field.HasField("oneof_index") else ""
        yield f"field {name}.{field.name} = {field.number} {label} {type_of(field)}{oneof}"
    for enum in message.enum_type:
        yield from enum_lines(f"{name}.{enum.name}", enum)
    for nested in message.nested_type:
        yield from message_lines(f"{name}.{nested.name}", nested)


def enum_lines(name, enum):
    yield f"enum {name}"
    for value in enum.value:
        yield f"value {name}.{value.name} = {value.number}"


def contract_lines(files):
    lines = []
    for file in files.file:
        for message in file.message_type:
            lines += message_lines(f"{file.package}.{message.name}", message)
        for enum in file.enum_type:
            lines += enum_lines(f"{file.package}.{enum.name}", enum)
        for service in file.service:
            full = f"{file.package}.{service.name}"
            lines.append(f"service {full}")
            for method in service.method:
                take = ("stream " if method.client_streaming else "") + method.input_type[1:]
                give = ("stream " if method.server_streaming else "") + method.output_type[1:]
                lines.append(f"method {full}.{method.name} ({take}) returns ({give})")
    return sorted(lines)


def breaking(files, baseline):
    """Lines of the baseline that the contract does not have any more."""
    now = set(contract_lines(files))
    return [line for line in baseline if line and line not in now]


def documented_parts(file):
    """(comment path, name) of everything that needs a comment."""
    def of_message(path, name, message):
        yield path, name
        for i, field in enumerate(message.field):
            yield path + (2, i), f"{name}.{field.name}"
        for i, oneof in enumerate(message.oneof_decl):
            yield path + (8, i), f"{name}.{oneof.name}"
        for i, nested in enumerate(message.nested_type):
            yield from of_message(path + (3, i), f"{name}.{nested.name}", nested)
        for i, enum in enumerate(message.enum_type):
            yield from of_enum(path + (4, i), f"{name}.{enum.name}", enum)

    def of_enum(path, name, enum):
        yield path, name
        for i, value in enumerate(enum.value):
            yield path + (2, i), f"{name}.{value.name}"

    for i, message in enumerate(file.message_type):
        yield from of_message((FILE_MESSAGE, i), f"{file.package}.{message.name}", message)
    for i, enum in enumerate(file.enum_type):
        yield from of_enum((FILE_ENUM, i), f"{file.package}.{enum.name}", enum)
    for i, service in enumerate(file.service):
        name = f"{file.package}.{service.name}"
        yield (FILE_SERVICE, i), name
        for j, method in enumerate(service.method):
            yield (FILE_SERVICE, i, 2, j), f"{name}.{method.name}"


def all_messages(files):
    def walk(name, message):
        yield name, message
        for nested in message.nested_type:
            yield from walk(f"{name}.{nested.name}", nested)
    for file in files.file:
        for message in file.message_type:
            yield from walk(f"{file.package}.{message.name}", message)


def recursive_messages(files):
    """Messages that can hold themselves: the C decoders recurse without a bound of their own."""
    uses = {name: {field.type_name[1:] for field in message.field if field.type == Field.TYPE_MESSAGE}
            for name, message in all_messages(files)}
    for name in uses:
        reached, todo = set(), list(uses[name])
        while todo:
            other = todo.pop()
            if other not in reached:
                reached.add(other)
                todo += uses.get(other, ())
        if name in reached:
            yield name


def style_faults(files):
    faults = []
    for file in files.file:
        if file.name.startswith(FOREIGN):
            continue
        commented = {tuple(place.path) for place in file.source_code_info.location
                     if place.leading_comments.strip() or place.trailing_comments.strip()}
        faults += [f"{name}: no comment" for path, name in documented_parts(file) if path not in commented]
        faults += [f"{file.name}: imports {name}, which the JSON mapping does not know" for name in file.dependency
                   if name.startswith(FOREIGN) and name not in ALLOWED_IMPORTS]
        if file.syntax != "proto3":
            faults.append(f"{file.name}: not proto3")
    for name, message in all_messages(files):
        if message.options.map_entry:
            faults.append(f"{name}: a map; use a repeated message")
        faults += [f"{name}.{field.name}: proto3 optional; use a message" for field in message.field
                   if field.proto3_optional]
    faults += [f"{name}: can hold itself; a hostile message would exhaust the decoder's stack"
               for name in recursive_messages(files)]
    return faults


def main(arguments):
    if len(arguments) == 2 and arguments[0] == "list":
        print("\n".join(contract_lines(load(arguments[1]))))
        return 0
    if len(arguments) == 3 and arguments[0] == "breaking":
        faults = [f"gone or changed: {line}" for line in
                  breaking(load(arguments[1]), open(arguments[2], encoding="utf-8").read().splitlines())]
    elif len(arguments) == 2 and arguments[0] == "style":
        faults = style_faults(load(arguments[1]))
    else:
        sys.exit(__doc__)
    print("\n".join(faults), file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
