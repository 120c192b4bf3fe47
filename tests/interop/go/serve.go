// Go's gRPC server, with the methods that sdk/rpc/interop/peer.c and core/rpc/interop/interop.c call, and Go's own health service.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // makes gzip known
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

const patience = 10 * time.Second // for what must happen at once

// streamCancelled is told of each stream that ended because the client cancelled it.
var streamCancelled = make(chan struct{}, 16)

type unaryFunc func(ctx context.Context, request []byte) ([]byte, error)

func echo(_ context.Context, request []byte) ([]byte, error) { return request, nil }

func failing(code codes.Code, what envelope) unaryFunc {
	return func(context.Context, []byte) ([]byte, error) {
		return nil, status.FromProto(&spb.Status{
			Code:    int32(code),
			Message: what.message,
			Details: []*anypb.Any{{TypeUrl: envelopeURL, Value: what.encode()}},
		}).Err()
	}
}

func hang(ctx context.Context, _ []byte) ([]byte, error) {
	<-ctx.Done()
	return nil, status.FromContextError(ctx.Err()).Err()
}

// The text and the binary header come back as they are; the answer says that a deadline came along.
func headers(ctx context.Context, _ []byte) ([]byte, error) {
	received, _ := metadata.FromIncomingContext(ctx)
	answer := metadata.MD{}
	for _, name := range []string{"x-test", "x-test-bin"} {
		answer.Set(name, received.Get(name)...)
	}
	if err := grpc.SetHeader(ctx, answer); err != nil {
		return nil, err
	}
	if until, ok := ctx.Deadline(); !ok || time.Until(until) > time.Hour {
		return []byte("no deadline"), nil
	}
	return []byte("deadline"), nil
}

func binaryHeader(ctx context.Context, _ []byte) ([]byte, error) {
	received, _ := metadata.FromIncomingContext(ctx)
	if values := received.Get("x-test-bin"); len(values) == 1 {
		return []byte(values[0]), nil
	}
	return nil, status.Error(codes.InvalidArgument, "x-test-bin is missing")
}

// Compressed when the client says that it can read that; Go's server never sends it otherwise.
func compressed(ctx context.Context, _ []byte) ([]byte, error) {
	if accepted, err := grpc.ClientSupportedCompressors(ctx); err == nil {
		for _, name := range accepted {
			if name == "gzip" {
				if err := grpc.SetSendCompressor(ctx, "gzip"); err != nil {
					return nil, err
				}
			}
		}
	}
	return bytes.Repeat([]byte("z"), 1000), nil
}

// Answers once a stream has been cancelled, however late its handler hears of it.
func awaitCancelled(ctx context.Context, _ []byte) ([]byte, error) {
	select {
	case <-streamCancelled:
		return []byte("cancelled"), nil
	case <-time.After(patience):
		return nil, status.Error(codes.FailedPrecondition, "no stream was cancelled")
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

// "<count> <size>": that many messages of that size.
func count(_ any, stream grpc.ServerStream) error {
	var request raw
	var number, size int
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	if _, err := fmt.Sscan(string(request.data), &number, &size); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	message := &raw{bytes.Repeat([]byte("x"), size)}
	for ; number > 0; number-- {
		if err := stream.SendMsg(message); err != nil {
			if errors.Is(stream.Context().Err(), context.Canceled) {
				streamCancelled <- struct{}{}
			}
			return err
		}
	}
	return nil
}

func chat(_ any, stream grpc.ServerStream) error {
	for {
		var message raw
		if err := stream.RecvMsg(&message); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
	}
}

func service(name string, unary map[string]unaryFunc, streams []grpc.StreamDesc) *grpc.ServiceDesc {
	description := &grpc.ServiceDesc{ServiceName: name, Streams: streams}
	for method, function := range unary {
		function := function // each its own: before Go 1.22 the loop has one
		description.Methods = append(description.Methods, grpc.MethodDesc{MethodName: method,
			Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				var request raw
				if err := decode(&request); err != nil {
					return nil, err
				}
				reply, err := function(ctx, request.data)
				return &raw{reply}, err
			}})
	}
	return description
}

func serve(path string) error {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	const limit = 64 << 20
	server := grpc.NewServer(grpc.ForceServerCodec(codec{}), grpc.MaxRecvMsgSize(limit), grpc.MaxSendMsgSize(limit),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Second, Timeout: patience}))
	slimFailure := envelope{category: 7, code: "rate_limit.exceeded", message: "Slow down", origin: 3, retryable: 1, retryAfterMs: 1500}
	server.RegisterService(service("test.Echo", map[string]unaryFunc{
		"Unary": echo, "Fail": failing(codes.ResourceExhausted, slimFailure), "Hang": hang, "Metadata": headers,
		"Gzip": compressed, "Cancelled": awaitCancelled,
	}, []grpc.StreamDesc{
		{StreamName: "Stream", Handler: count, ServerStreams: true},
		{StreamName: "Bidi", Handler: chat, ServerStreams: true, ClientStreams: true},
	}), nil)
	server.RegisterService(service("test.v1.Test", map[string]unaryFunc{
		"Echo": echo, "Fail": failing(codes.Aborted, envelope{category: 5, code: "catalog.record.conflict", message: "there already"}),
		"Hold": hang, "Binary": binaryHeader, "Gzip": compressed, "Cancelled": awaitCancelled,
	}, []grpc.StreamDesc{
		{StreamName: "Count", Handler: count, ServerStreams: true},
		{StreamName: "Chat", Handler: chat, ServerStreams: true, ClientStreams: true},
	}), nil)
	healthpb.RegisterHealthServer(server, health.NewServer())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()
	fmt.Println("ready")
	return server.Serve(listener)
}
