"""json_oracle_test.py TOOL DESCRIPTOR_SET: wire_json against Python's own proto3 JSON mapping, on random messages and on
tables of good and bad input. The random seed is fixed and printed."""
import json
import random
import struct
import subprocess
import sys
import unittest

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

TOOL, DESCRIPTORS = sys.argv[1], sys.argv[2]
SEED, ROUNDS = 20261, 600


def load():
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(open(DESCRIPTORS, "rb").read()).file:
        pool.Add(file)
    factory = message_factory.MessageFactory(pool)
    return (pool, factory.GetPrototype(pool.FindMessageTypeByName("wire.test.v1.Everything")),
            factory.GetPrototype(pool.FindMessageTypeByName("core.common.v1.ErrorEnvelope")))


POOL, Everything, ErrorEnvelope = load()


class Tool:
    def __init__(self):
        self.process = subprocess.Popen([TOOL], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, operation, data):
        self.process.stdin.write(operation + struct.pack("=I", len(data)) + data)
        self.process.stdin.flush()
        verdict = self.process.stdout.read(1)
        (size,) = struct.unpack("=I", self.process.stdout.read(4))
        return verdict == b"k", self.process.stdout.read(size)

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(timeout=30)


def random_text(rng):
    pool = ["a", "Z", '"', "\\", "\n", "\t", "\x01", "\x7f", "é", "漢", "😀", "\u2028", "</script>", "\ufffd"]
    return "".join(rng.choice(pool) for _ in range(rng.randrange(12)))


def random_scalar(rng, field):
    kind = field.type
    bits = 32 if kind in (field.TYPE_INT32, field.TYPE_SINT32, field.TYPE_SFIXED32, field.TYPE_UINT32,
                          field.TYPE_FIXED32) else 64
    if kind in (field.TYPE_UINT32, field.TYPE_FIXED32, field.TYPE_UINT64, field.TYPE_FIXED64):
        return rng.choice([0, 1, 2**bits - 1, rng.getrandbits(bits)])
    if kind in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        # No -0.0: protobuf-c leaves it out of the wire form, as it does 0.0.
        value = rng.choice([0.0, 1.5, 0.1, 1e21, -3.25e-9, float("inf"), float("-inf"), float("nan"),
                            rng.uniform(-1e6, 1e6)])
        return struct.unpack("f", struct.pack("f", value))[0] if kind == field.TYPE_FLOAT else value
    if kind == field.TYPE_BOOL:
        return rng.random() < 0.5
    if kind == field.TYPE_STRING:
        return random_text(rng)
    if kind == field.TYPE_BYTES:
        return rng.randbytes(rng.randrange(9))
    if kind == field.TYPE_ENUM:
        return rng.choice([0, 1, 7, -3, 12345])
    return rng.choice([0, 1, -1, 2**(bits - 1) - 1, -2**(bits - 1), rng.getrandbits(bits - 1)])


def fill(rng, message, depth):
    fields = list(message.DESCRIPTOR.fields)
    for field in rng.sample(fields, rng.randrange(len(fields) + 1)):
        if field.containing_oneof and message.WhichOneof(field.containing_oneof.name):
            continue
        if field.message_type is not None:
            if field.message_type.full_name == "google.protobuf.Any":
                message.detail.Pack(ErrorEnvelope(code=random_text(rng), category=rng.randrange(12), retryable=True))
            elif depth < 4:
                target = getattr(message, field.name)
                count = rng.randrange(3) if field.label == field.LABEL_REPEATED else 1
                for _ in range(count):
                    child = target.add() if field.label == field.LABEL_REPEATED else target
                    child.SetInParent()
                    fill(rng, child, depth + 1)
        elif field.label == field.LABEL_REPEATED:
            getattr(message, field.name).extend(random_scalar(rng, field) for _ in range(rng.randrange(4)))
        else:
            setattr(message, field.name, random_scalar(rng, field))
    return message


def normal(message):
    """A form that compares equal also where NaN is inside."""
    return json.loads(json_format.MessageToJson(message, descriptor_pool=POOL))


class JsonOracle(unittest.TestCase):
    def setUp(self):
        self.tool = Tool()

    def tearDown(self):
        self.assertEqual(self.tool.close(), 0, "the tool ended badly")

    def test_random_messages_read_and_write_as_python_does(self):
        rng = random.Random(SEED)
        for round_number in range(ROUNDS):
            message = fill(rng, Everything(), 0)
            ok, text = self.tool.ask(b"e", message.SerializeToString())
            self.assertTrue(ok, f"seed {SEED} round {round_number}: {text}")
            self.assertEqual(json.loads(text), normal(message), f"seed {SEED} round {round_number}")
            for form in (text, json_format.MessageToJson(message, preserving_proto_field_name=True,
                                                         use_integers_for_enums=True, descriptor_pool=POOL).encode()):
                ok, wire = self.tool.ask(b"d", form)
                self.assertTrue(ok, f"seed {SEED} round {round_number}: {wire} {form}")
                self.assertEqual(normal(Everything.FromString(wire)), normal(message))

    def test_accepted_forms(self):
        for text, expected in [
            ('{}', {}), (' {"anInt32": 1} ', {"anInt32": 1}), ('{"an_int32":"-5"}', {"anInt32": -5}),
            ('{"anInt32":1.0}', {"anInt32": 1}), ('{"anInt32":1e3}', {"anInt32": 1000}), ('{"anInt32":-0}', {}),
            ('{"aUint64":18446744073709551615}', {"aUint64": "18446744073709551615"}),
            ('{"anInt64":-9223372036854775808}', {"anInt64": "-9223372036854775808"}),
            ('{"aDouble":"1.5"}', {"aDouble": 1.5}), ('{"aDouble":"NaN"}', {"aDouble": "NaN"}),
            ('{"aFloat":"-Infinity"}', {"aFloat": "-Infinity"}), ('{"aString":null,"child":null}', {}),
            ('{"stringList":null}', {}), ('{"chosenText":null,"chosenNumber":"3"}', {"chosenNumber": "3"}),
            ('{"chosenText":""}', {"chosenText": ""}), ('{"chosenChild":{}}', {"chosenChild": {}}),
            ('{"someBytes":"-_8"}', {"someBytes": "+/8="}), ('{"someBytes":"+/8="}', {"someBytes": "+/8="}),
            ('{"colour":7}', {"colour": "COLOUR_DEEP_BLUE"}), ('{"colour":99}', {"colour": 99}),
            ('{"aString":"\\ud83d\\ude00\\u00e9\\/"}', {"aString": "😀é/"}), ('{"detail":{}}', {"detail": {}}),
            ('{"detail":{"@type":"t/core.common.v1.ErrorEnvelope","code":"a"}}',
             {"detail": {"@type": "t/core.common.v1.ErrorEnvelope", "code": "a"}}),
        ]:
            with self.subTest(text):
                ok, wire = self.tool.ask(b"d", text.encode())
                self.assertTrue(ok, wire)
                ok, back = self.tool.ask(b"e", wire)
                self.assertTrue(ok, back)
                self.assertEqual(json.loads(back), expected)

    def test_refused_forms(self):
        deep = '{"child":' * 70 + '{}' + '}' * 70
        cases = [("json.malformed", text) for text in ('', '{', '{"anInt32":}', '{"anInt32":01}', '{} x', "{'a':1}",
                                                       '{"aString":"\\ud800"}', '{"anInt32":1,}', '{"aBool":TRUE}')]
        cases += [("json.malformed", b'{"aString":"\xff"}'), ("json.too_deep", deep)]
        cases += [("argument.invalid", text) for text in (
            '[]', '1', 'null', '"x"', '{"nothing":1}', '{"an__int32":1}', '{"anInt32":1,"an_int32":2}',
            '{"anInt32":1,"anInt32":1}', '{"anInt32":2147483648}', '{"anInt32":-2147483649}', '{"anInt32":1.5}',
            '{"anInt32":"1.0"}', '{"anInt32":""}', '{"anInt32":" 1"}', '{"anInt32":true}', '{"anInt32":[1]}',
            '{"aUint32":-1}', '{"aUint32":4294967296}', '{"aUint64":18446744073709551616}',
            '{"anInt64":"9223372036854775808"}', '{"anInt64":1e30}', '{"aFloat":1e39}', '{"aDouble":1e309}',
            '{"aDouble":"inf"}', '{"aDouble":"0x10"}', '{"aDouble":"1 "}', '{"aDouble":"nan"}', '{"aBool":"true"}',
            '{"aBool":1}', '{"aString":1}', '{"aString":"\\u0000"}', '{"someBytes":"a"}', '{"someBytes":"a b="}',
            '{"someBytes":"QQ==="}', '{"someBytes":1}', '{"colour":"PURPLE"}', '{"colour":1.5}',
            '{"colour":4294967296}', '{"child":[]}', '{"child":1}', '{"stringList":"a"}', '{"stringList":[null]}',
            '{"stringList":["a",1]}', '{"childList":[{},{"x":1}]}', '{"chosenText":"a","chosenNumber":"3"}',
            '{"detail":{"@type":"nowhere/some.Type"}}', '{"detail":{"code":"a"}}',
            '{"detail":{"@type":"t/core.common.v1.ErrorEnvelope","nothing":1}}', '{"detail":{"@type":1}}')]
        for code, text in cases:
            with self.subTest(text):
                ok, answer = self.tool.ask(b"d", text if isinstance(text, bytes) else text.encode())
                self.assertFalse(ok, answer)
                self.assertEqual(answer.decode(), code)

    def test_any_of_a_foreign_type_is_refused_on_encoding(self):
        message = Everything()
        message.detail.type_url = "type.googleapis.com/some.Foreign"
        self.assertEqual(self.tool.ask(b"e", message.SerializeToString()), (False, b"unsupported"))
        message.detail.type_url = "type.googleapis.com/core.common.v1.ErrorEnvelope"
        message.detail.value = b"\xff"
        self.assertEqual(self.tool.ask(b"e", message.SerializeToString()), (False, b"rpc.message.malformed"))

    def test_every_cut_of_a_valid_text_is_refused(self):
        text = b'{"child":{"stringList":["a\\n","b"],"aDouble":-1.5e3},"someBytes":"QUI=","aBool":true}'
        self.assertTrue(self.tool.ask(b"d", text)[0])
        for length in range(len(text)):
            self.assertEqual(self.tool.ask(b"d", text[:length]), (False, b"json.malformed"), text[:length])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)
