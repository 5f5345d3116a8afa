//go:build tools

// Package tools names the program `age`, which e2e/cluster/tools.sh builds: the tests decrypt with it what pgrail encrypted.
package tools

import _ "filippo.io/age/cmd/age"
