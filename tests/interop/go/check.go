// Checks of our servers by Go's client: what both serve. slim.go and core.go add what only one does.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// names are one service's methods by what they do.
type names struct{ echo, fail, hang, stream, bidi string }

type caller struct {
	*grpc.ClientConn
	names
}

type check struct {
	name string
	run  func(ctx context.Context, c caller) error
}

var serviceNames = map[string]names{
	"slim": {"/test.Echo/Unary", "/test.Echo/Fail", "/test.Echo/Hang", "/test.Echo/Stream", "/test.Echo/Bidi"},
	"core": {"/test.v1.Test/Echo", "/test.v1.Test/Fail", "/test.v1.Test/Hold", "/test.v1.Test/Count", "/test.v1.Test/Chat"},
}

var checks = map[string][]check{
	"slim": append(common(), slimChecks...),
	"core": append(common(), coreChecks...),
}

func common() []check {
	return []check{
		{"unary", unarySizes},
		{"too_large", tooLarge},
		{"unknown_method", unknownMethod},
		{"deadline", deadline},
		{"cancellation", cancellation},
		{"server_stream", serverStream},
		{"cancelled_stream", cancelledStream},
		{"bidi", bidi},
		{"bidi_large", bidiLarge},
		{"reader_that_waits", readerThatWaits},
		{"many_at_once", manyAtOnce},
		{"health_check", healthCheck},
		{"health_watch", healthWatch},
	}
}

func runCheck(side, path, name string) error {
	const limit = 64 << 20
	connection, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{}), grpc.MaxCallRecvMsgSize(limit), grpc.MaxCallSendMsgSize(limit)))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	for _, one := range checks[side] {
		if one.name == name {
			return one.run(ctx, caller{connection, serviceNames[side]})
		}
	}
	return fmt.Errorf("no such check of %s: %s", side, name)
}

// call is one unary call.
func (c caller) call(ctx context.Context, method string, request []byte, options ...grpc.CallOption) ([]byte, error) {
	var reply raw
	err := c.Invoke(ctx, method, &raw{request}, &reply, options...)
	return reply.data, err
}

// usable says whether the connection still serves.
func (c caller) usable(ctx context.Context) error {
	reply, err := c.call(ctx, c.echo, []byte("still here"))
	if err == nil && string(reply) != "still here" {
		err = fmt.Errorf("the echo is %q", reply)
	}
	return err
}

func (c caller) open(ctx context.Context, method string, request []byte) (grpc.ClientStream, error) {
	stream, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: request == nil}, method)
	if err != nil || request == nil {
		return stream, err
	}
	if err := stream.SendMsg(&raw{request}); err != nil {
		return nil, err
	}
	return stream, stream.CloseSend()
}

func receive(stream grpc.ClientStream) ([]byte, error) {
	var message raw
	err := stream.RecvMsg(&message)
	return message.data, err
}

func expectCode(err error, code codes.Code) error {
	if status.Code(err) != code {
		return fmt.Errorf("expected %v, got %v (%v)", code, status.Code(err), err)
	}
	return nil
}

// expectDetails: err carries one google.rpc.Status with one of our envelopes, and both say the same.
func expectDetails(err error, code codes.Code, expected envelope) error {
	if wrong := expectCode(err, code); wrong != nil {
		return wrong
	}
	var received *spb.Status = status.Convert(err).Proto()
	if len(received.Details) != 1 || received.Details[0].TypeUrl != envelopeURL {
		return fmt.Errorf("details are %v", received.Details)
	}
	got, wrong := decodeEnvelope(received.Details[0].Value)
	if wrong != nil {
		return wrong
	}
	if got.message != received.Message {
		return fmt.Errorf("the envelope says %q, the status %q", got.message, received.Message)
	}
	if got != expected {
		return fmt.Errorf("the envelope is %+v, expected %+v", got, expected)
	}
	return nil
}

const messageMax = 4 << 20

func unarySizes(ctx context.Context, c caller) error {
	for _, size := range []int{0, 1, 16383, 16384, 65535, 65536, 1 << 20, messageMax} {
		request := bytes.Repeat([]byte{byte(size>>8) | 1}, size)
		reply, err := c.call(ctx, c.echo, request)
		if err != nil || !bytes.Equal(request, reply) {
			return fmt.Errorf("%d bytes came back as %d (%v)", size, len(reply), err)
		}
	}
	return nil
}

func tooLarge(ctx context.Context, c caller) error {
	_, err := c.call(ctx, c.echo, make([]byte, messageMax+1))
	if wrong := expectCode(err, codes.ResourceExhausted); wrong != nil {
		return wrong
	}
	return c.usable(ctx)
}

func unknownMethod(ctx context.Context, c caller) error {
	for _, method := range []string{c.echo + "s", "/no.such.Service/Method", "/x"} {
		_, err := c.call(ctx, method, nil)
		if wrong := expectCode(err, codes.Unimplemented); wrong != nil {
			return fmt.Errorf("%s: %w", method, wrong)
		}
	}
	stream, err := c.open(ctx, "/no.such.Service/Stream", nil)
	if err != nil {
		return err
	}
	_, err = receive(stream)
	return expectCode(err, codes.Unimplemented)
}

func deadline(ctx context.Context, c caller) error {
	began := time.Now()
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	_, err := c.call(short, c.hang, nil)
	if wrong := expectCode(err, codes.DeadlineExceeded); wrong != nil {
		return wrong
	}
	if took := time.Since(began); took > patience/2 {
		return fmt.Errorf("it took %v", took)
	}
	return c.usable(ctx)
}

func cancellation(ctx context.Context, c caller) error {
	for _, wait := range []time.Duration{0, time.Millisecond, 50 * time.Millisecond} {
		gone, cancel := context.WithCancel(ctx)
		timer := time.AfterFunc(wait, cancel)
		_, err := c.call(gone, c.hang, nil)
		timer.Stop()
		cancel()
		if wrong := expectCode(err, codes.Canceled); wrong != nil {
			return wrong
		}
	}
	return c.usable(ctx)
}

func serverStream(ctx context.Context, c caller) error {
	stream, err := c.open(ctx, c.stream, []byte("1000 100"))
	if err != nil {
		return err
	}
	for number := 0; ; number++ {
		message, err := receive(stream)
		if err == io.EOF && number == 1000 {
			return nil
		}
		if err != nil || len(message) != 100 {
			return fmt.Errorf("message %d has %d bytes (%v)", number, len(message), err)
		}
	}
}

func cancelledStream(ctx context.Context, c caller) error {
	gone, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.open(gone, c.stream, []byte("100000000 1000"))
	if err != nil {
		return err
	}
	if _, err := receive(stream); err != nil {
		return err
	}
	cancel()
	for err == nil {
		_, err = receive(stream)
	}
	if wrong := expectCode(err, codes.Canceled); wrong != nil {
		return wrong
	}
	return c.usable(ctx)
}

// exchange sends each message and reads it back, then ends in order.
func exchange(ctx context.Context, c caller, messages [][]byte) error {
	stream, err := c.open(ctx, c.bidi, nil)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		for _, message := range messages {
			if err := stream.SendMsg(&raw{message}); err != nil {
				sent <- err
				return
			}
		}
		sent <- stream.CloseSend()
	}()
	for number, message := range messages {
		reply, err := receive(stream)
		if err != nil || !bytes.Equal(message, reply) {
			return fmt.Errorf("message %d of %d bytes came back as %d (%v)", number, len(message), len(reply), err)
		}
	}
	if _, err := receive(stream); err != io.EOF {
		return fmt.Errorf("after the last message: %v", err)
	}
	return <-sent
}

func bidi(ctx context.Context, c caller) error {
	return exchange(ctx, c, [][]byte{[]byte("a"), []byte("b"), {}, bytes.Repeat([]byte("d"), 100000), []byte("e")})
}

func bidiLarge(ctx context.Context, c caller) error {
	messages := make([][]byte, 6)
	for i := range messages {
		messages[i] = bytes.Repeat([]byte{byte(i) + 1}, 700000)
	}
	return exchange(ctx, c, messages)
}

// A stream that is not read holds nobody else up, and comes whole in the end.
func readerThatWaits(ctx context.Context, c caller) error {
	stream, err := c.open(ctx, c.stream, []byte("2000 10000"))
	if err != nil {
		return err
	}
	for i := 0; i < 20; i++ {
		if err := c.usable(ctx); err != nil {
			return err
		}
	}
	for number := 0; number < 2000; number++ {
		if message, err := receive(stream); err != nil || len(message) != 10000 {
			return fmt.Errorf("message %d has %d bytes (%v)", number, len(message), err)
		}
	}
	_, err = receive(stream)
	if err != io.EOF {
		return fmt.Errorf("after the last message: %v", err)
	}
	return nil
}

func manyAtOnce(ctx context.Context, c caller) error {
	const calls = 500
	problems := make(chan error, calls)
	var running sync.WaitGroup
	for i := 0; i < calls; i++ {
		running.Add(1)
		go func(i int) {
			defer running.Done()
			request := bytes.Repeat([]byte{byte(i)}, 1+i*100)
			reply, err := c.call(ctx, c.echo, request)
			if err != nil || !bytes.Equal(request, reply) {
				problems <- fmt.Errorf("call %d: %d bytes came back as %d (%v)", i, len(request), len(reply), err)
			}
		}(i)
	}
	running.Wait()
	close(problems)
	return <-problems
}

func healthCheck(ctx context.Context, c caller) error {
	client := healthpb.NewHealthClient(c)
	answer, err := client.Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil || answer.Status != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("the process is %v (%v)", answer.GetStatus(), err)
	}
	_, err = client.Check(ctx, &healthpb.HealthCheckRequest{Service: "no.such.Service"})
	return expectCode(err, codes.NotFound)
}

func healthWatch(ctx context.Context, c caller) error {
	for service, expected := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"": healthpb.HealthCheckResponse_SERVING, "no.such.Service": healthpb.HealthCheckResponse_SERVICE_UNKNOWN,
	} {
		watching, cancel := context.WithCancel(ctx)
		defer cancel()
		watch, err := healthpb.NewHealthClient(c).Watch(watching, &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			return err
		}
		answer, err := watch.Recv()
		if err != nil || answer.Status != expected {
			return fmt.Errorf("%q is %v (%v)", service, answer.GetStatus(), err)
		}
		cancel()
		if _, err := watch.Recv(); status.Code(err) != codes.Canceled {
			return fmt.Errorf("the watch ended with %v", err)
		}
	}
	return nil
}

// withHeaders adds a text and a binary header.
func withHeaders(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "x-test", "one", "x-test-bin", binaryValue)
}

const binaryValue = "\x00\x01\xff,="
