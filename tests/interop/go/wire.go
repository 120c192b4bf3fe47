// One message as Go writes it, from the descriptors alone: its bytes and its JSON.
package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

func wire(descriptors, name string) error {
	data, err := os.ReadFile(descriptors)
	if err != nil {
		return err
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(data, set); err != nil {
		return err
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return err
	}
	found, err := files.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return err
	}
	description, ok := found.(protoreflect.MessageDescriptor)
	if !ok {
		return fmt.Errorf("%s is no message", name)
	}
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	types := dynamicpb.NewTypes(files)
	message := dynamicpb.NewMessage(description)
	if err := (protojson.UnmarshalOptions{Resolver: types}).Unmarshal(text, message); err != nil {
		return err
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return err
	}
	// What is written as JSON has been through the wire form.
	back := dynamicpb.NewMessage(description)
	if err := (proto.UnmarshalOptions{Resolver: types}).Unmarshal(encoded, back); err != nil {
		return err
	}
	written, err := protojson.MarshalOptions{Resolver: types}.Marshal(back)
	if err != nil {
		return err
	}
	fmt.Printf("wire %s\njson %s\n", hex.EncodeToString(encoded), written)
	return nil
}
