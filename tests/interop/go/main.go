// Go's gRPC as the other side of our interoperability tests, over Unix sockets.
//
//	interop checks slim|core            the names of the checks, one a line
//	interop check slim|core SOCKET NAME one check of our server: of sdk/rpc (slim) or of core/rpc (core)
//	interop serve SOCKET                serves both test services until standard input ends; prints "ready"
//
// Exit status: 0 fine, 1 a check failed (it says why on standard error), 2 wrong usage.
package main

import (
	"fmt"
	"os"
)

func run(arguments []string) error {
	switch {
	case len(arguments) == 2 && arguments[0] == "checks":
		for _, check := range checks[arguments[1]] {
			fmt.Println(check.name)
		}
		return nil
	case len(arguments) == 4 && arguments[0] == "check":
		return runCheck(arguments[1], arguments[2], arguments[3])
	case len(arguments) == 2 && arguments[0] == "serve":
		return serve(arguments[1])
	}
	fmt.Fprintln(os.Stderr, "usage: interop checks|check|serve ARGUMENT...")
	os.Exit(2)
	return nil
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
