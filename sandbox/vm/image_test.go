package vm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// unpacked is one entry of an archive.
type unpacked struct {
	Name, Data string
	Mode       uint64
}

// unpack reads a newc archive by cpio(5), as the kernel does.
func unpack(t *testing.T, raw []byte) []unpacked {
	t.Helper()
	var out []unpacked
	for at := 0; at < len(raw); {
		header := string(raw[at : at+110])
		if header[:6] != "070701" {
			t.Fatalf("at %d: magic %q", at, header[:6])
		}
		field := func(n int) int {
			value, err := strconv.ParseUint(header[6+8*n:14+8*n], 16, 32)
			if err != nil {
				t.Fatalf("at %d: field %d: %v", at, n, err)
			}
			return int(value)
		}
		size, nameSize := field(6), field(11)
		name := string(raw[at+110 : at+110+nameSize-1])
		data := (at + 110 + nameSize + 3) &^ 3
		at = (data + size + 3) &^ 3
		if name == cpioTrailer {
			if at != len(raw) {
				t.Fatalf("%d bytes follow the trailer", len(raw)-at)
			}
			return out
		}
		out = append(out, unpacked{Name: name, Data: string(raw[data : data+size]), Mode: uint64(field(1))})
	}
	t.Fatal("no trailer")
	return nil
}

func TestArchive(t *testing.T) {
	for name, test := range map[string]struct {
		fill func(*archive)
		want []unpacked
	}{
		"nothing is a trailer alone": {fill: func(*archive) {}},
		"directories come before what is in them, once": {
			fill: func(a *archive) {
				a.file("/etc/a/b", 0o600, []byte("one"))
				a.file("/etc/a/c", 0o755, []byte("seven b"))
			},
			want: []unpacked{
				{Name: "etc", Mode: 0o040755},
				{Name: "etc/a", Mode: 0o040755},
				{Name: "etc/a/b", Data: "one", Mode: 0o100600},
				{Name: "etc/a/c", Data: "seven b", Mode: 0o100755},
			},
		},
		"a path cannot climb out of the root": {
			fill: func(a *archive) { a.file("/../../x", 0o600, nil) },
			want: []unpacked{{Name: "x", Mode: 0o100600}},
		},
		"an empty file is a file": {
			fill: func(a *archive) { a.file("/init", 0o755, nil) },
			want: []unpacked{{Name: "init", Mode: 0o100755}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var buf bytes.Buffer
			a := newArchive(&buf)
			test.fill(a)
			if err := a.close(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, unpack(t, buf.Bytes())); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
		})
	}
}

// fullDisk refuses to be written to.
type fullDisk struct{}

var errFull = errors.New("no space left")

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func TestArchiveKeepsTheFirstError(t *testing.T) {
	a := newArchive(fullDisk{})
	a.file("/init", 0o755, []byte("x"))
	if err := a.close(); !errors.Is(err, errFull) {
		t.Errorf("error = %v, want %v", err, errFull)
	}
}

func TestParseDepends(t *testing.T) {
	for name, test := range map[string]struct {
		modinfo string
		want    []string
	}{
		"a module that needs none says so":        {modinfo: "license=GPL\x00depends=\x00retpoline=Y\x00"},
		"a section without the key needs none":    {modinfo: "license=GPL\x00"},
		"several are separated by commas":         {modinfo: "depends=virtio,virtio_ring\x00", want: []string{"virtio", "virtio_ring"}},
		"a dash is an underscore":                 {modinfo: "depends=crc32c-intel\x00", want: []string{"crc32c_intel"}},
		"another key that ends alike is not it":   {modinfo: "softdepends=a\x00depends=b\x00", want: []string{"b"}},
		"a section that is cut short is read yet": {modinfo: "depends=a,b", want: []string{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, parseDepends([]byte(test.modinfo))); diff != "" {
				t.Errorf("needs (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzParseDepends(f *testing.F) {
	f.Add([]byte("license=GPL\x00depends=virtio,virtio_ring\x00"))
	f.Add([]byte("depends=,,\x00"))
	f.Fuzz(func(t *testing.T, modinfo []byte) {
		for _, name := range parseDepends(modinfo) {
			if name == "" || strings.ContainsAny(name, ",\x00") {
				t.Errorf("module name %q", name)
			}
		}
	})
}

func TestModulesComeAfterWhatTheyNeed(t *testing.T) {
	k, err := findKernel()
	if err != nil {
		t.Fatal(err)
	}
	m, err := findModules(k.modules)
	if err != nil {
		t.Fatal(err)
	}
	files, err := m.order("virtio_net", "virtio_blk", "nvme") // nvme is built in, and needs no file
	if err != nil {
		t.Fatal(err)
	}
	loaded := map[string]bool{}
	for _, file := range files {
		needs, err := dependsOf(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, need := range needs {
			if !loaded[need] && !m.builtin[need] {
				t.Errorf("%s is loaded before %s, which it needs", moduleName(file), need)
			}
		}
		if loaded[moduleName(file)] {
			t.Errorf("%s is loaded twice", moduleName(file))
		}
		loaded[moduleName(file)] = true
	}
	if !loaded["virtio_net"] || !loaded["virtio_blk"] || loaded["nvme"] {
		t.Errorf("loaded: %v", loaded)
	}
	if _, err := m.order("no_such_module"); err == nil || !strings.Contains(err.Error(), "no_such_module") {
		t.Errorf("a module that does not exist: error = %v", err)
	}
}

func TestMissingPartsNameTheRemedy(t *testing.T) {
	for name, test := range map[string]func(t *testing.T) error{
		"no kernel was unpacked": func(t *testing.T) error {
			_, err := kernelIn(t.TempDir())
			return err
		},
		"QEMU is not installed": func(*testing.T) error {
			_, err := lookPath("qemu-system-of-no-machine")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := test(t); err == nil || !strings.Contains(err.Error(), "hack/test-setup.sh") {
				t.Errorf("error = %v, want one that names hack/test-setup.sh", err)
			}
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	many := make([]Device, maxDevices+1)
	for i := range many {
		many[i].ID = fmt.Sprintf("gpu%d", i)
	}
	for name, test := range map[string]struct {
		options Options
		want    string
	}{
		"a device ID that QEMU would split":     {Options{Devices: []Device{{ID: "gpu0,x=y"}}}, "device ID"},
		"a device without an ID":                {Options{Devices: []Device{{}}}, "device ID"},
		"two devices of one ID":                 {Options{Devices: []Device{{ID: "a"}, {ID: "a"}}}, "twice"},
		"more devices than ports":               {Options{Devices: many}, "room for"},
		"a file whose path is relative":         {Options{Files: map[string][]byte{"etc/x": nil}}, "absolute"},
		"a file that the disk would hide":       {Options{Files: map[string][]byte{StateDir + "/x": nil}}, "hidden"},
		"an agent binary that is not there":     {Options{Agent: Agent{Binary: "no/such/agent"}}, "agent"},
		"an agent that needs a dynamic library": {Options{Agent: Agent{Binary: dynamicBinary(t)}}, "static"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := test.options.defaulted(); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want one with %q", err, test.want)
			}
		})
	}
}

// dynamicBinary is a program that has an interpreter: the shell of any machine that has QEMU.
func dynamicBinary(t *testing.T) string {
	t.Helper()
	path, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDiskIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), diskFile)
	if err := makeDisk(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := makeDisk(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(first) != diskSize || !bytes.Equal(first, second) {
		t.Errorf("a disk of %d bytes was made anew, or has not %d", len(first), diskSize)
	}
}
