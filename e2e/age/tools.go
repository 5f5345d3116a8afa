//go:build tools

// Package tools names the programs that e2e/cluster/tools.sh builds: the tests make keys with `age-keygen`, and decrypt with `age` what
// pgrail encrypted.
package tools

import (
	_ "filippo.io/age/cmd/age"
	_ "filippo.io/age/cmd/age-keygen"
)
