//go:build tools

// Package tools names the programs that e2e/cluster/tools.sh builds: the manager of CloudNativePG, which is its operator and, in the pod
// of each instance, what runs PostgreSQL; and its plugin of kubectl.
package tools

import (
	_ "github.com/cloudnative-pg/cloudnative-pg/cmd/kubectl-cnpg"
	_ "github.com/cloudnative-pg/cloudnative-pg/cmd/manager"
)
