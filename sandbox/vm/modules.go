package vm

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// guestModules are what the guest needs beyond what Debian's cloud kernel has built in (NVMe, ext4, PCI hotplug and
// the serial ports): its network card, its disk, and the bus they sit on.
var guestModules = []string{"virtio_pci", "virtio_blk", "virtio_net"}

// modules finds kernel modules and what they depend on. It reads the dependencies from the modules themselves, because
// modules.dep is made by depmod when a kernel is installed, and ours never is.
type modules struct {
	paths   map[string]string
	builtin map[string]bool
}

// findModules indexes the modules below dir, which is one kernel's lib/modules/VERSION.
func findModules(dir string) (*modules, error) {
	m := &modules{paths: map[string]string{}, builtin: map[string]bool{}}
	raw, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("reading which modules are built in: %w", err)
	}
	for line := range strings.Lines(string(raw)) {
		m.builtin[moduleName(strings.TrimSpace(line))] = true
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.HasSuffix(path, ".ko") {
			m.paths[moduleName(path)] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("looking for modules: %w", err)
	}
	return m, nil
}

// moduleName turns a module's path into its name: the kernel writes an underscore where the file may have a dash.
func moduleName(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".ko"), "-", "_")
}

// order returns the files of the named modules and of all they depend on, dependencies first.
func (m *modules) order(names ...string) ([]string, error) {
	var out []string
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		if seen[name] || m.builtin[name] {
			return nil
		}
		seen[name] = true
		path, ok := m.paths[name]
		if !ok {
			return fmt.Errorf("the kernel has no module %s, neither built in nor as a file", name)
		}
		needs, err := dependsOf(path)
		if err != nil {
			return err
		}
		for _, need := range needs {
			if err := visit(need); err != nil {
				return fmt.Errorf("%s needs: %w", name, err)
			}
		}
		out = append(out, path)
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// dependsOf reads a module's own list of the modules it needs.
func dependsOf(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading a module: %w", err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("reading %s: %w", filepath.Base(path), errNoModinfo)
	}
	raw, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", filepath.Base(path), err)
	}
	return parseDepends(raw), nil
}

var errNoModinfo = errors.New("no section .modinfo: not a kernel module")

// parseDepends finds depends= among the NUL-ended key=value strings of a .modinfo section.
func parseDepends(modinfo []byte) []string {
	var needs []string
	for _, field := range bytes.Split(modinfo, []byte{0}) {
		list, ok := bytes.CutPrefix(field, []byte("depends="))
		if !ok {
			continue
		}
		for _, name := range strings.Split(string(list), ",") {
			if name != "" {
				needs = append(needs, moduleName(name))
			}
		}
	}
	return needs
}
