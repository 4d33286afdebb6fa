package controlplane

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/sandbox/child"
)

func TestFlagsAreStableAndTheCallersWin(t *testing.T) {
	got := flags(map[string]string{"v": "0", "etcd-servers": "a"}, map[string]string{"v": "4", "profiling": "false"})
	want := []string{"--etcd-servers=a", "--profiling=false", "--v=4"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("flags (-want +got):\n%s", diff)
	}
	if got := switches(map[string]bool{"B": true, "A": false}); got != "A=false,B=true" {
		t.Errorf("switches = %q", got)
	}
}

func TestOptionsThatCannotWorkAreRefusedBeforeAnythingStarts(t *testing.T) {
	tests := map[string]struct {
		options Options
		want    string
	}{
		"a token life below the server's least": {
			options: Options{TokenMaxExpiration: time.Minute},
			want:    "no less than 1h",
		},
		"flags for a component that is not started": {
			options: Options{ExtraArgs: map[Component]map[string]string{Scheduler: {"v": "4"}}},
			want:    "do not start",
		},
		"a binary that is not there": {
			options: Options{Binary: filepath.Join(t.TempDir(), "nothing")},
			want:    "run hack/build-controlplane.sh",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Start(t.Context(), tc.options)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error = %v, want one that says %q", err, tc.want)
			}
		})
	}
}

func TestTheBinaryIsFoundInBinAboveTheWorkingDirectoryOnly(t *testing.T) {
	root := t.TempDir()
	below := filepath.Join(root, "sandbox", "e2e")
	for _, dir := range []string{below, filepath.Join(root, "bin")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(below)
	if _, err := findBinary(""); !errors.Is(err, ErrNoBinary) {
		t.Errorf("without a binary: error = %v, want ErrNoBinary", err)
	}
	want := filepath.Join(root, "bin", binaryName)
	if err := os.WriteFile(want, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := findBinary(""); !errors.Is(err, ErrNoBinary) {
		t.Errorf("with a file that is no program: error = %v, want ErrNoBinary", err)
	}
	if err := os.Chmod(want, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := findBinary(""); err != nil || got != want {
		t.Errorf("found %q, %v; want %q", got, err, want)
	}
}

func TestOnlyATakenPortIsWorthAnotherAttempt(t *testing.T) {
	tests := map[string]struct {
		err  error
		want bool
	}{
		"the log says that the address is in use": {
			err:  &child.FailedError{Name: string(APIServer), Cause: errors.New("it exited"), Tail: "listen tcp 127.0.0.1:1: bind: address already in use"},
			want: true,
		},
		"the log says something else": {
			err: &child.FailedError{Name: string(APIServer), Cause: errors.New("it exited"), Tail: "unknown flag"},
		},
		"another error that mentions it": {
			err: errors.New("address already in use"),
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := portTaken(errors.Join(tc.err, nil)); got != tc.want {
				t.Errorf("portTaken = %t, want %t", got, tc.want)
			}
		})
	}
}

func TestManifestsAreExpandedOnceAndInOrder(t *testing.T) {
	fsys := fstest.MapFS{
		"crd/b.yaml":     {},
		"crd/a.yaml":     {},
		"crd/README.md":  {},
		"crd/deep/c.yml": {},
		"one":            {},
	}
	tests := map[string]struct {
		paths   []string
		want    []string
		wantErr bool
	}{
		"a directory gives its manifests and leaves the rest": {
			paths: []string{"crd"}, want: []string{"crd/a.yaml", "crd/b.yaml", "crd/deep/c.yml"},
		},
		"a file named outright needs no suffix": {
			paths: []string{"one"}, want: []string{"one"},
		},
		"a file that two paths name is read once": {
			paths: []string{"crd/b.yaml", "crd/*.yaml"}, want: []string{"crd/b.yaml", "crd/a.yaml"},
		},
		"a path that names nothing is an error": {
			paths: []string{"crds"}, wantErr: true,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := manifests(fsys, tc.paths)
			if (err != nil) != tc.wantErr {
				t.Fatalf("error = %v, want one: %t", err, tc.wantErr)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

func TestManifestsAreParsedByDocument(t *testing.T) {
	tests := map[string]struct {
		text    string
		want    []string
		wantErr bool
	}{
		"empty documents and comments are nothing": {
			text: "---\n# only a comment\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n",
			want: []string{"a"},
		},
		"JSON is YAML":                    {text: `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"j"}}`, want: []string{"j"}},
		"an object without a name":        {text: "apiVersion: v1\nkind: Namespace\n", wantErr: true},
		"a document that is not a map":    {text: "- a\n", wantErr: true},
		"a document that is not YAML":     {text: "a: [", wantErr: true},
		"metadata that is not an object":  {text: "apiVersion: v1\nkind: Namespace\nmetadata: no\n", wantErr: true},
		"a name that is not even a text":  {text: "apiVersion: v1\nkind: Namespace\nmetadata: {name: 1}\n", wantErr: true},
		"nothing at all is no object":     {text: ""},
		"a second object of the same one": {text: "apiVersion: v1\nkind: A\nmetadata: {name: a}\n---\napiVersion: v1\nkind: A\nmetadata: {name: b}\n", want: []string{"a", "b"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			objects, err := parseManifest([]byte(tc.text))
			if (err != nil) != tc.wantErr {
				t.Fatalf("error = %v, want one: %t", err, tc.wantErr)
			}
			var names []string
			for _, object := range objects {
				names = append(names, object.GetName())
			}
			if diff := cmp.Diff(tc.want, names); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n---\n"))
	f.Add([]byte("---\n{}\n--- # x\n- 1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, err := parseManifest(data)
		if err != nil {
			return
		}
		for _, object := range objects {
			if object.GetKind() == "" || object.GetName() == "" {
				t.Errorf("accepted an object without a kind or a name: %v", object.Object)
			}
		}
	})
}
