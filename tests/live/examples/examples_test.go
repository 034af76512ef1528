// Package examples reads the examples as the programs that they are for read them: an unknown
// field is an error.
package examples

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

const examples = "../../../examples"

// An empty object of each kind that the manifests may name.
var kinds = map[string]func() any{
	"apps/v1 Deployment":                      func() any { return &apps.Deployment{} },
	"batch/v1 Job":                            func() any { return &batch.Job{} },
	"monitoring.coreos.com/v1 PodMonitor":     func() any { return &monitoring.PodMonitor{} },
	"monitoring.coreos.com/v1 ServiceMonitor": func() any { return &monitoring.ServiceMonitor{} },
	"v1 Service":                              func() any { return &core.Service{} },
}

func decode(document []byte) error {
	var head struct{ APIVersion, Kind string }
	if err := yaml.Unmarshal(document, &head); err != nil {
		return err
	}
	made, known := kinds[head.APIVersion+" "+head.Kind]
	if !known {
		return os.ErrNotExist
	}
	return yaml.UnmarshalStrict(document, made())
}

func TestManifests(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(examples, "kubernetes", "*.yaml"))
	if len(files) < 3 {
		t.Fatalf("manifests: %v", files)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for number, document := range bytes.Split(text, []byte("\n---\n")) {
			if err := decode(document); err != nil {
				t.Errorf("%s, document %d: %v", file, number+1, err)
			}
		}
	}
}

func TestAnUnknownFieldIsRefused(t *testing.T) {
	for _, document := range []string{
		"apiVersion: apps/v1\nkind: Deployment\nspec: {replicaz: 1}\n",
		"apiVersion: monitoring.coreos.com/v1\nkind: ServiceMonitor\nspec: {endpointz: []}\n",
		"apiVersion: v1\nkind: Nothing\n",
	} {
		if decode([]byte(document)) == nil {
			t.Errorf("decoded: %s", document)
		}
	}
}

func TestCompose(t *testing.T) {
	options, err := cli.NewProjectOptions(
		[]string{filepath.Join(examples, "compose", "compose.yaml")},
		cli.WithConsistency(true), cli.WithNormalization(true), cli.WithResolvedPaths(true),
	)
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if names := project.ServiceNames(); len(names) != 5 {
		t.Errorf("services: %v", names)
	}
	for name, service := range project.Services {
		for _, volume := range service.Volumes {
			if volume.Type == "bind" {
				if _, err := os.Stat(volume.Source); err != nil {
					t.Errorf("%s mounts what is not there: %v", name, err)
				}
			}
		}
	}
}
