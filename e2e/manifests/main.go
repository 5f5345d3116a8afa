// manifests FILE...: reads YAML manifests of Flux and of the Prometheus operator with their own Go types. Unknown fields and
// duplicate ones are errors, and so is a kind that it does not know, unless it is one of Kubernetes.
// Prints a line for each document. The exit status is 1 if one of them is not valid.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	helm "github.com/fluxcd/helm-controller/api/v2"
	kustomize "github.com/fluxcd/kustomize-controller/api/v1"
	source "github.com/fluxcd/source-controller/api/v1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/yaml"
	kubernetes "k8s.io/client-go/kubernetes/scheme"
)

func main() {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		kubernetes.AddToScheme, kustomize.AddToScheme, helm.AddToScheme, source.AddToScheme, monitoring.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	decoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	status := 0
	for _, path := range os.Args[1:] {
		data, err := os.ReadFile(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		documents := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(data)))
		for {
			document := make([]byte, len(data)+1)
			length, err := documents.Read(document)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
				os.Exit(2)
			}
			document = document[:length]
			if len(bytes.TrimSpace(document)) == 0 {
				continue
			}
			_, kind, err := decoder.Decode(document, nil, nil)
			if err != nil {
				fmt.Printf("%s: %v: %v\n", path, kind, err)
				status = 1
				continue
			}
			fmt.Printf("%s: %v\n", path, kind)
		}
	}
	os.Exit(status)
}
