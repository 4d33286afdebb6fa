//go:build cgo && linux

package nvml

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	"golang.org/x/sys/unix"
)

// soname is the library; the one without a number is for compilers and may be missing.
const soname = "libnvidia-ml.so.1"

// driverRoot is where the driver container of NVIDIA's GPU operator shows its root file system to the host.
const driverRoot = "run/nvidia/driver"

// places are where distributions, and the hosts of cloud providers, install the library, besides where the loader looks
// by itself. /usr/lib may hold 32-bit libraries, which the loader refuses, so it comes last.
var places = []string{
	"usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu",
	"usr/lib/x86_64-linux-gnu/nvidia/current", "usr/lib/aarch64-linux-gnu/nvidia/current",
	"usr/lib64", "lib64", "usr/local/nvidia/lib64",
	"home/kubernetes/bin/nvidia/lib64", "usr/local/glibc/usr/lib", "run/opengl-driver/lib",
	"usr/lib",
}

// preloaded are the C library's parts that NVML is linked with. They are loaded from the helper's own root before it
// moves into another: the parts of one C library do not work with those of another, and the loader takes what is loaded
// under a name already.
var preloaded = []string{"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"}

// errMissing means that no library was found, anywhere.
var errMissing = errors.New(soname + " is not there")

// library is NVML: the name that it was loaded by, and the file that this was.
type library struct {
	*dl.DynamicLibrary
	name, path string
}

// load finds the library below root, or in a driver container's root below that, and loads it. The process moves into
// the root where the library is (chroot): NVML opens /proc/driver/nvidia and /dev/nvidia* by these names, and the loader
// resolves the library's links and dependencies there. Without the right to, it takes the library by its whole path, or
// the one that a container runtime put into the agent's own container.
func load(root string) (*library, error) {
	for _, name := range preloaded {
		// A C library that no longer has such a part (glibc 2.34 made them one) needs none.
		_ = dl.New(name, dl.RTLD_LAZY|dl.RTLD_GLOBAL).Open()
	}
	v := view{"/"}
	var problems []error
	for _, dir := range order(root) {
		err := v.enter(dir)
		if dir == driverRoot && errors.Is(err, fs.ErrNotExist) {
			break
		}
		var lib *library
		if err == nil {
			lib, err = v.load()
		}
		if err == nil {
			return lib, nil
		}
		problems = append(problems, err)
	}
	if v.root != "/" {
		lib, err := view{"/"}.load()
		if err == nil {
			return lib, nil
		}
		problems = append(problems, err)
	}
	return nil, worst(problems)
}

// order is where to look. A driver container that has devices of its own is the driver that runs: what is left of another on
// the host would only say that the versions do not match.
func order(root string) []string {
	container := filepath.Join(root, driverRoot)
	if _, err := os.Stat(filepath.Join(container, "dev/nvidiactl")); err == nil {
		return []string{container}
	}
	return []string{root, driverRoot}
}

// worst is the error to tell: that a library is there and does not load says more than that another is missing.
func worst(problems []error) error {
	for _, err := range problems {
		if !errors.Is(err, errMissing) {
			return err
		}
	}
	return errMissing
}

// view is where the wanted root is, seen from the process: "/" once it has moved there.
type view struct{ root string }

// enter goes to a directory of the root. Without the right to change roots the process stays and looks from outside.
func (v *view) enter(dir string) error {
	dir = filepath.Join(v.root, dir)
	if dir == "/" {
		return nil
	}
	err := unix.Chroot(dir)
	if errors.Is(err, unix.EPERM) {
		v.root = dir
		return nil
	}
	if err == nil {
		err = os.Chdir("/")
	}
	if err != nil {
		return fmt.Errorf("entering %s: %w", dir, err)
	}
	v.root = "/"
	return nil
}

// load tries the loader's own search, which knows the root's ld.so.cache, and then the usual places.
func (v view) load() (*library, error) {
	var names []string
	if v.root == "/" {
		names = append(names, soname)
	}
	for _, place := range places {
		path := filepath.Join(v.root, place, soname)
		if _, err := os.Lstat(path); err == nil {
			names = append(names, path)
		}
	}
	problem := errMissing
	for _, name := range names {
		lib := dl.New(name, dl.RTLD_LAZY|dl.RTLD_GLOBAL)
		err := lib.Open()
		if err == nil {
			path, e := lib.Path()
			if e != nil {
				path = name
			}
			return &library{lib, name, path}, nil
		}
		// The loader begins what it says with the name of the file that it means.
		if missing := strings.HasPrefix(err.Error(), soname+": cannot open shared object file"); !missing {
			problem = fmt.Errorf("loading %s: %w", name, err)
		}
	}
	return nil, problem
}
