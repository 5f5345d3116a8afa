// Gateway is versitygw, an S3 server on a directory, without what the tests do not run: versitygw's own program also
// holds its test suite and its gateways to other stores, and takes much longer to compile.
//
//	ROOT_ACCESS_KEY_ID=... ROOT_SECRET_ACCESS_KEY=... gateway ADDRESS DIRECTORY
//
// Every directory in DIRECTORY is a bucket.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: gateway ADDRESS DIRECTORY")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}

func run(address, directory string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := (meta.XattrMeta{}).Test(directory); err != nil {
		return fmt.Errorf("%s cannot hold extended attributes: %w", directory, err)
	}
	// The values of versitygw's own program.
	store, err := posix.New(directory, meta.XattrMeta{}, posix.PosixOpts{
		Concurrency:         5000,
		CopyObjectThreshold: 5 << 30,
	})
	if err != nil {
		return err
	}
	return embedgw.RunVersityGW(ctx, store, &embedgw.Config{
		RootUserAccess:    os.Getenv("ROOT_ACCESS_KEY_ID"),
		RootUserSecret:    os.Getenv("ROOT_SECRET_ACCESS_KEY"),
		Region:            "us-east-1",
		Ports:             []string{address},
		MaxConnections:    250000,
		MaxRequests:       100000,
		MultipartMaxParts: 10000,
		Quiet:             true,
	})
}
