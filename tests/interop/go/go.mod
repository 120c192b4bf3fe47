// Go's own gRPC and protobuf, as the other side of the interoperability tests (tests/integration/test_interop_go.py).
// The newest versions that Go 1.21 can build.
module gatehouse/tests/interop

go 1.21

require (
	google.golang.org/genproto/googleapis/rpc v0.0.0-20240814211410-ddb44dafa142
	google.golang.org/grpc v1.67.3
	google.golang.org/protobuf v1.34.2
)

require (
	golang.org/x/net v0.28.0 // indirect
	golang.org/x/sys v0.28.0 // indirect
	golang.org/x/text v0.17.0 // indirect
)
