"""contract_test.py DESCRIPTOR_SET: the checks of contract.py find what they are for. Each case damages the real contract in
one way."""
import sys
import unittest

import contract
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

DESCRIPTORS = sys.argv[1]


def find_message(files, name):
    return next(message for full, message in contract.all_messages(files) if full == name)


def find_file(files, name):
    return next(file for file in files.file if file.name == name)


def envelope_field(files, name):
    return next(f for f in find_message(files, "core.common.v1.ErrorEnvelope").field if f.name == name)


class ContractChecks(unittest.TestCase):
    def setUp(self):
        self.files = contract.load(DESCRIPTORS)
        self.baseline = contract.contract_lines(self.files)

    def lost(self):
        return contract.breaking(self.files, self.baseline)

    def test_the_same_contract_is_not_breaking(self):
        self.assertEqual(self.lost(), [])

    def test_an_added_field_is_not_breaking(self):
        find_message(self.files, "core.common.v1.ErrorEnvelope").field.add(
            name="added", number=900, type=Field.TYPE_BOOL, label=Field.LABEL_OPTIONAL)
        self.assertEqual(self.lost(), [])

    def test_a_removed_field_is_found(self):
        del find_message(self.files, "core.common.v1.ErrorEnvelope").field[1]
        self.assertEqual(self.lost(), ["field core.common.v1.ErrorEnvelope.code = 2 singular string"])

    def test_a_removed_message_is_found(self):
        del find_file(self.files, "google/rpc/status.proto").message_type[:]
        self.assertIn("message google.rpc.Status", self.lost())

    def test_a_changed_number_is_found(self):
        envelope_field(self.files, "code").number = 901
        self.assertEqual(len(self.lost()), 1)

    def test_a_changed_type_is_found(self):
        envelope_field(self.files, "code").type = Field.TYPE_BYTES
        self.assertEqual(len(self.lost()), 1)

    def test_a_changed_label_is_found(self):
        envelope_field(self.files, "code").label = Field.LABEL_REPEATED
        self.assertEqual(len(self.lost()), 1)

    def test_a_renamed_enum_value_is_found(self):
        find_file(self.files, "core/common/v1/common.proto").enum_type[0].value[1].name = "OTHER"
        self.assertEqual(len(self.lost()), 1)

    def test_a_changed_streaming_flag_is_found(self):
        for flag in ("client_streaming", "server_streaming"):
            with self.subTest(flag):
                files = contract.load(DESCRIPTORS)
                method = find_file(files, "grpc/health/v1/health.proto").service[0].method[0]
                setattr(method, flag, not getattr(method, flag))
                self.assertEqual(len(contract.breaking(files, self.baseline)), 1)

    def test_a_missing_comment_is_found(self):
        file = find_file(self.files, "core/common/v1/common.proto")
        before = len(contract.style_faults(self.files))
        for place in file.source_code_info.location:
            if list(place.path) == [contract.FILE_MESSAGE, 0, 2, 0]:
                place.ClearField("leading_comments")
        self.assertEqual(len(contract.style_faults(self.files)), before + 1)

    def test_an_optional_field_and_a_recursive_message_are_found(self):
        before = len(contract.style_faults(self.files))
        envelope_field(self.files, "code").proto3_optional = True
        field = envelope_field(self.files, "message")
        field.type, field.type_name = Field.TYPE_MESSAGE, ".core.common.v1.ErrorEnvelope"
        self.assertEqual(len(contract.style_faults(self.files)), before + 2)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
