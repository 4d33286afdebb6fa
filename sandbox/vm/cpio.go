package vm

import (
	"fmt"
	"io"
	"path"
	"strings"
)

// The modes of a newc entry, from cpio(5).
const (
	cpioDir  = 0o040000
	cpioFile = 0o100000
)

// cpioTrailer is the name of the entry that ends an archive.
const cpioTrailer = "TRAILER!!!"

// archive writes an initramfs: a cpio archive of the newc kind, which is what the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst of its source). It is not compressed, because the host
// hands it over in memory while the guest would unpack it on an emulated processor.
type archive struct {
	w     io.Writer
	inode uint32
	dirs  map[string]bool
	err   error
}

// newArchive returns an archive that is written to w.
func newArchive(w io.Writer) *archive {
	return &archive{w: w, dirs: map[string]bool{".": true, "/": true}}
}

// file adds a file, and the directories above it that were not yet added. The first error sticks until close.
func (a *archive) file(name string, perm uint32, data []byte) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	a.dir(path.Dir(name))
	a.entry(name, cpioFile|perm&0o7777, data)
}

// dir adds a directory and those above it.
func (a *archive) dir(name string) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" || a.dirs[name] {
		return
	}
	a.dir(path.Dir(name))
	a.dirs[name] = true
	a.entry(name, cpioDir|0o755, nil)
}

// close ends the archive and returns the first error of all its writes.
func (a *archive) close() error {
	a.entry(cpioTrailer, 0, nil)
	if a.err != nil {
		return fmt.Errorf("writing the initramfs: %w", a.err)
	}
	return nil
}

// entry writes one header, its name and its data, each padded to four bytes.
func (a *archive) entry(name string, mode uint32, data []byte) {
	if a.err != nil {
		return
	}
	if uint64(len(data)) > 1<<32-1 {
		a.err = fmt.Errorf("%s: %d bytes are more than newc can hold", name, len(data))
		return
	}
	a.inode++
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	a.write([]byte(header + name + "\x00"))
	a.pad(len(header) + len(name) + 1)
	a.write(data)
	a.pad(len(data))
}

// pad writes the zeros that bring n to a multiple of four.
func (a *archive) pad(n int) {
	a.write(make([]byte, (4-n%4)%4))
}

// write writes p unless an earlier write failed.
func (a *archive) write(p []byte) {
	if a.err == nil && len(p) > 0 {
		_, a.err = a.w.Write(p)
	}
}
