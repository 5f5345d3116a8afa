// Kube is a whole Kubernetes in one program: every part of it under its own name, as the first argument or as the name
// the program is called by (links named kubectl and helm).
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// The parts, by name; each finds its arguments in os.Args. addons.go adds to them.
var parts = map[string]func() int{
	"etcd":               func() int { etcdmain.Main(os.Args); return 0 },
	"apiserver":          func() int { return cli.Run(apiserver.NewAPIServerCommand()) },
	"controller-manager": func() int { return cli.Run(controllermanager.NewControllerManagerCommand()) },
	"scheduler":          func() int { return cli.Run(scheduler.NewSchedulerCommand()) },
	"kubelet":            func() int { return cli.Run(kubelet.NewKubeletCommand(context.Background())) },
	"proxy":              func() int { return cli.Run(proxy.NewProxyCommand()) },
	"kubectl":            func() int { return cli.Run(kubectl.NewDefaultKubectlCommand()) },
	"volumes":            func() int { return cli.Run(newVolumesCommand()) },
}

func main() {
	run, found := parts[filepath.Base(os.Args[0])]
	if !found && len(os.Args) > 1 {
		run, found = parts[os.Args[1]]
		os.Args = os.Args[1:]
	}
	if !found {
		fmt.Fprintf(os.Stderr, "usage: kube %s FLAGS\n", strings.Join(slices.Sorted(maps.Keys(parts)), "|"))
		os.Exit(2)
	}
	os.Exit(run())
}
