// Package nvmltest builds what tests of NVML need where there is no GPU: the helper, and a libnvidia-ml.so.1 of our own
// whose answers a text file controls. The head of testdata/nvml.c says what that file may hold.
package nvmltest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed testdata/nvml.c
var source []byte

// Kit is the helper, and the library before it is linked.
type Kit struct {
	// Helper is the path of roundhouse-nvml.
	Helper string

	dir string
}

// NewKit builds both in the directory. It needs gcc, or what $CC names, and says so where there is none.
func NewKit(ctx context.Context, dir string) (*Kit, error) {
	k := &Kit{Helper: filepath.Join(dir, "roundhouse-nvml"), dir: dir}
	if err := os.WriteFile(filepath.Join(dir, "nvml.c"), source, 0o600); err != nil {
		return nil, fmt.Errorf("building a test's NVML: %w", err)
	}
	if err := k.cc(ctx, "-c", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", "nvml.o", "nvml.c"); err != nil {
		return nil, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", k.Helper,
		"github.com/roundhouse-dev/roundhouse/cmd/roundhouse-nvml")
	// The bindings bind what NVIDIA has deprecated, too, and the compiler says so at length.
	build.Env = append(os.Environ(), "CGO_ENABLED=1", "CGO_CFLAGS=-O2 -g -Wno-deprecated-declarations")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building roundhouse-nvml: %w\n%s", err, out)
	}
	return k, nil
}

// Library puts a library below the root of a host that is to have one, without the functions that are to be absent, and
// returns its path. Answers gives it its answers.
func (k *Kit) Library(ctx context.Context, root string, absent ...string) (string, error) {
	built := "libnvidia-ml.so." + strings.Join(absent, ".")
	if len(built) > 200 {
		built = fmt.Sprintf("libnvidia-ml.so.without-%d-from-%s", len(absent), absent[0])
	}
	if _, err := os.Stat(filepath.Join(k.dir, built)); errors.Is(err, fs.ErrNotExist) {
		if err := k.link(ctx, built, absent); err != nil {
			return "", err
		}
	}
	dir := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	path := filepath.Join(dir, "libnvidia-ml.so.1")
	data, err := os.ReadFile(filepath.Join(k.dir, built))
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(path, data, 0o755)
	}
	if err != nil {
		return "", fmt.Errorf("installing a test's NVML: %w", err)
	}
	return path, nil
}

// Answers sets what the library of a path answers from the next helper on.
func Answers(library string, lines ...string) error {
	if err := os.WriteFile(library+".conf", []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return fmt.Errorf("writing a test's answers: %w", err)
	}
	return nil
}

// link hides the functions that are to be absent.
func (k *Kit) link(ctx context.Context, to string, absent []string) error {
	script := "{ };"
	if len(absent) > 0 {
		script = "{ local: " + strings.Join(absent, "; ") + "; };"
	}
	if err := os.WriteFile(filepath.Join(k.dir, to+".map"), []byte(script), 0o600); err != nil {
		return fmt.Errorf("building a test's NVML: %w", err)
	}
	return k.cc(ctx, "-shared", "-Wl,-soname,libnvidia-ml.so.1", "-Wl,--version-script="+to+".map", "-o", to, "nvml.o")
}

func (k *Kit) cc(ctx context.Context, args ...string) error {
	compiler := os.Getenv("CC")
	if compiler == "" {
		compiler = "gcc"
	}
	cmd := exec.CommandContext(ctx, compiler, args...)
	cmd.Dir = k.dir
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("no C compiler %s: the tests of NVML compile a library of their own; install gcc or set CC", compiler)
	}
	if err != nil {
		return fmt.Errorf("building a test's NVML: %w\n%s", err, out)
	}
	return nil
}
