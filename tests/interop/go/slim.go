// Checks of the slim wire's server (sdk/rpc) alone.
package main

import (
	"context"
	"fmt"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
)

var slimChecks = []check{
	{"status_details", slimDetails},
	{"gzip_is_refused", gzipIsRefused},
	{"metadata", slimMetadata},
}

func slimDetails(ctx context.Context, c caller) error {
	_, err := c.call(ctx, c.fail, nil)
	return expectDetails(err, codes.ResourceExhausted,
		envelope{category: 7, code: "rate_limit.exceeded", message: "Slow down: 100% ü?said", origin: 3, retryable: 1, retryAfterMs: 1500})
}

func gzipIsRefused(ctx context.Context, c caller) error {
	_, err := c.call(ctx, c.echo, make([]byte, 1000), grpc.UseCompressor(gzip.Name))
	if wrong := expectCode(err, codes.Unimplemented); wrong != nil {
		return wrong
	}
	return c.usable(ctx)
}

// Both headers come back as headers; the answer is what is left of the deadline, which Go sends in a unit of its choice.
func slimMetadata(ctx context.Context, c caller) error {
	limited, cancel := context.WithTimeout(withHeaders(ctx), patience)
	defer cancel()
	var received metadata.MD
	reply, err := c.call(limited, "/test.Echo/Metadata", nil, grpc.Header(&received))
	if err != nil {
		return err
	}
	text, binary := received.Get("x-test"), received.Get("x-test-bin")
	if len(text) != 1 || text[0] != "one" || len(binary) != 1 || binary[0] != binaryValue {
		return fmt.Errorf("the headers came back as %q, %q", text, binary)
	}
	left, err := strconv.Atoi(string(reply))
	if err != nil || left <= int(patience.Milliseconds())/2 || left > int(patience.Milliseconds()) {
		return fmt.Errorf("%q ms are left of %v", reply, patience)
	}
	return nil
}
