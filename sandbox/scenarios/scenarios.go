// Package scenarios holds the scenarios that roundhouse-sandbox ships, as YAML that docs/scenarios.md explains.
package scenarios

import (
	"embed"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/roundhouse-dev/roundhouse/sandbox/scenario"
)

//go:embed *.yaml
var files embed.FS

// Names lists the scenarios, in the order of their names.
func Names() ([]string, error) {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("listing the scenarios: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), path.Ext(e.Name())))
	}
	slices.Sort(names)
	return names, nil
}

// Get reads one of the scenarios by its name.
func Get(name string) (*scenario.Scenario, error) {
	names, err := Names()
	if err != nil {
		return nil, err
	}
	if !slices.Contains(names, name) {
		return nil, fmt.Errorf("no scenario %q; there are %s, and any file that ends in .yaml", name, strings.Join(names, ", "))
	}
	data, err := files.ReadFile(name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("reading scenario %s: %w", name, err)
	}
	return scenario.Parse(name+".yaml", data)
}
