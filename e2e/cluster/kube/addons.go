package main

import (
	"errors"
	"log/slog"
	"os"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	helm "helm.sh/helm/v4/pkg/cmd"
	helmkube "helm.sh/helm/v4/pkg/kube"
)

// CoreDNS and Helm are made of the same client libraries as Kubernetes. In programs of their own, those libraries would be
// compiled three times.
func init() {
	parts["coredns"] = runCoreDNS
	parts["helm"] = runHelm
}

func runCoreDNS() int {
	dnsserver.Directives = []string{"bind", "errors", "cache", "kubernetes"}
	coremain.Run()
	return 0
}

func runHelm() int {
	// The field manager: otherwise the name of the program.
	helmkube.ManagedFieldsManager = "helm"
	command, err := helm.NewRootCmd(os.Stdout, os.Args[1:], helm.SetupLogging)
	if err != nil {
		slog.Warn("command failed", slog.Any("error", err))
		return 1
	}
	if err = command.Execute(); err == nil {
		return 0
	}
	var failed helm.CommandError
	if errors.As(err, &failed) {
		return failed.ExitCode
	}
	return 1
}
