package main

import (
	"strings"
	"testing"
)

func TestRunNamesItsComponentsWhenTheFirstArgumentIsNoneOfThem(t *testing.T) {
	tests := map[string]struct{ args []string }{
		"no argument at all":            {args: nil},
		"a component that is not here":  {args: []string{"kubelet"}},
		"a flag where the name belongs": {args: []string{"--version"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var stderr strings.Builder
			if code := run(tc.args, &stderr); code != 2 {
				t.Errorf("exit code = %d, want 2", code)
			}
			want := "etcd|kube-apiserver|kube-controller-manager|kube-scheduler"
			if !strings.Contains(stderr.String(), want) {
				t.Errorf("usage %q does not name %q", stderr.String(), want)
			}
		})
	}
}
