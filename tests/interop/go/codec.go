// Messages as raw bytes, so that no generated code is needed; messages that Go's packages bring (health, reflection) as protobuf.
package main

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

type raw struct{ data []byte }

type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(value any) ([]byte, error) {
	switch message := value.(type) {
	case *raw:
		return message.data, nil
	case proto.Message:
		return proto.Marshal(message)
	}
	return nil, fmt.Errorf("cannot encode %T", value)
}

func (codec) Unmarshal(data []byte, value any) error {
	switch message := value.(type) {
	case *raw:
		message.data = append([]byte(nil), data...)
		return nil
	case proto.Message:
		return proto.Unmarshal(data, message)
	}
	return fmt.Errorf("cannot decode %T", value)
}

// envelope is core.common.v1.ErrorEnvelope as far as the test services fill it.
type envelope struct {
	category, origin, retryable, retryAfterMs uint64
	code, message                             string
}

const envelopeURL = "type.googleapis.com/core.common.v1.ErrorEnvelope"

func (e envelope) encode() []byte {
	var out []byte
	number := func(field protowire.Number, value uint64) {
		if value != 0 {
			out = protowire.AppendVarint(protowire.AppendTag(out, field, protowire.VarintType), value)
		}
	}
	text := func(field protowire.Number, value string) {
		out = protowire.AppendString(protowire.AppendTag(out, field, protowire.BytesType), value)
	}
	number(1, e.category)
	text(2, e.code)
	text(3, e.message)
	number(4, e.origin)
	number(5, e.retryable)
	number(6, e.retryAfterMs)
	return out
}

func decodeEnvelope(data []byte) (envelope, error) {
	numbers, texts := map[protowire.Number]uint64{}, map[protowire.Number]string{}
	for len(data) > 0 {
		field, kind, length := protowire.ConsumeTag(data)
		if length < 0 {
			return envelope{}, protowire.ParseError(length)
		}
		data = data[length:]
		switch kind {
		case protowire.VarintType:
			numbers[field], length = protowire.ConsumeVarint(data)
		case protowire.BytesType:
			texts[field], length = protowire.ConsumeString(data)
		default:
			return envelope{}, fmt.Errorf("field %d is of kind %d", field, kind)
		}
		if length < 0 {
			return envelope{}, protowire.ParseError(length)
		}
		data = data[length:]
	}
	return envelope{numbers[1], numbers[4], numbers[5], numbers[6], texts[2], texts[3]}, nil
}
