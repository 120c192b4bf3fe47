// Checks of the core's server (core/rpc) alone, also by Go's reflection client, which is what grpcurl stands on.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalphapb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
)

var coreChecks = []check{
	{"status_details", coreDetails},
	{"gzip_is_inflated", gzipIsInflated},
	{"metadata", coreMetadata},
	{"reflection", reflection},
	{"reflection_alpha", reflectionAlpha},
}

func coreDetails(ctx context.Context, c caller) error {
	expected := envelope{category: 5, code: "catalog.record.conflict", message: `it is "there" already: café`, origin: 2, retryAfterMs: 250}
	for request, code := range map[string]codes.Code{"x": codes.Aborted, "": codes.AlreadyExists} {
		_, err := c.call(ctx, c.fail, []byte(request))
		if wrong := expectDetails(err, code, expected); wrong != nil {
			return wrong
		}
	}
	return nil
}

func gzipIsInflated(ctx context.Context, c caller) error {
	request := bytes.Repeat([]byte("z"), 100000)
	reply, err := c.call(ctx, c.echo, request, grpc.UseCompressor(gzip.Name))
	if err != nil || !bytes.Equal(request, reply) {
		return fmt.Errorf("%d bytes came back as %d (%v)", len(request), len(reply), err)
	}
	// Inflated beyond the limit of a message.
	_, err = c.call(ctx, c.echo, make([]byte, messageMax+1), grpc.UseCompressor(gzip.Name))
	if wrong := expectCode(err, codes.ResourceExhausted); wrong != nil {
		return wrong
	}
	return c.usable(ctx)
}

// "<listener> <uid> <gid> <pid> <remaining_ms> <x-test>", and the bytes of x-test-bin.
func coreMetadata(ctx context.Context, c caller) error {
	limited, cancel := context.WithTimeout(withHeaders(ctx), patience)
	defer cancel()
	reply, err := c.call(limited, "/test.v1.Test/Who", nil)
	if err != nil {
		return err
	}
	var left int64
	expected := fmt.Sprintf("interop %d %d %d ", os.Getuid(), os.Getgid(), os.Getpid())
	rest, found := strings.CutPrefix(string(reply), expected)
	if _, err := fmt.Sscanf(rest, "%d one", &left); err != nil || !found || left <= patience.Milliseconds()/2 || left > patience.Milliseconds() {
		return fmt.Errorf("the answer is %q", reply)
	}
	if reply, err = c.call(limited, "/test.v1.Test/Binary", nil); err != nil || string(reply) != binaryValue {
		return fmt.Errorf("x-test-bin is %q (%v)", reply, err)
	}
	return nil
}

func reflection(ctx context.Context, c caller) error {
	stream, err := reflectionpb.NewServerReflectionClient(c).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	ask := func(question *reflectionpb.ServerReflectionRequest) (*reflectionpb.ServerReflectionResponse, error) {
		if err := stream.Send(question); err != nil {
			return nil, err
		}
		return stream.Recv()
	}
	answer, err := ask(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{ListServices: "*"}})
	if err != nil {
		return err
	}
	var services []string
	for _, service := range answer.GetListServicesResponse().GetService() {
		services = append(services, service.Name)
	}
	if !strings.Contains(strings.Join(services, " "), "grpc.health.v1.Health") {
		return fmt.Errorf("the services are %v", services)
	}
	answer, err = ask(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "grpc.health.v1.Health"}})
	if err != nil {
		return err
	}
	if err := expectFile(answer.GetFileDescriptorResponse().GetFileDescriptorProto()); err != nil {
		return err
	}
	answer, err = ask(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "no.such.Symbol"}})
	if err != nil {
		return err
	}
	if code := answer.GetErrorResponse().GetErrorCode(); code != int32(codes.NotFound) {
		return fmt.Errorf("an unknown symbol gives %v", answer)
	}
	return stream.CloseSend()
}

func reflectionAlpha(ctx context.Context, c caller) error {
	stream, err := reflectionalphapb.NewServerReflectionClient(c).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&reflectionalphapb.ServerReflectionRequest{
		MessageRequest: &reflectionalphapb.ServerReflectionRequest_FileByFilename{FileByFilename: "grpc/health/v1/health.proto"}}); err != nil {
		return err
	}
	answer, err := stream.Recv()
	if err != nil {
		return err
	}
	return expectFile(answer.GetFileDescriptorResponse().GetFileDescriptorProto())
}

// expectFile: the descriptors are whole, and those of the health service.
func expectFile(files [][]byte) error {
	set := &descriptorpb.FileDescriptorSet{}
	for _, data := range files {
		file := &descriptorpb.FileDescriptorProto{}
		if err := proto.Unmarshal(data, file); err != nil {
			return err
		}
		set.File = append(set.File, file)
	}
	known, err := protodesc.NewFiles(set)
	if err != nil {
		return err
	}
	_, err = known.FindDescriptorByName("grpc.health.v1.Health.Watch")
	return err
}
