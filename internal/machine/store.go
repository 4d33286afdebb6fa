package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxStored bounds what Load reads and Save writes; the largest file of ours is a few tens of KiB.
const maxStored = 1 << 20

// DirStore is a Store in a directory, one file a name. The directory has to be the host's, or state is lost with the pod.
type DirStore struct {
	dir  string
	door *door
}

// NewDirStore returns a store in the directory, which Save creates when it is not there.
func NewDirStore(dir string) *DirStore {
	return &DirStore{dir: dir, door: newDoor("state directory")}
}

// Load returns what was last saved under the name, or an error that is fs.ErrNotExist.
func (s *DirStore) Load(ctx context.Context, name string) ([]byte, error) {
	path, err := s.path(name)
	if err != nil {
		return nil, err
	}
	return through(ctx, s.door, func() ([]byte, error) {
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("loading state: %w", err)
		}
		if info.Size() > maxStored {
			return nil, fmt.Errorf("loading state %s: %d bytes is more than %d", name, info.Size(), maxStored)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("loading state: %w", err)
		}
		return data, nil
	})
}

// Save writes a temporary file, syncs it, renames it over the old one and syncs the directory: after a crash at any of
// these the old or the new content is there, whole (fsync(2) on why the directory too).
func (s *DirStore) Save(ctx context.Context, name string, data []byte) error {
	path, err := s.path(name)
	if err != nil {
		return err
	}
	if len(data) > maxStored {
		return fmt.Errorf("saving state %s: %d bytes is more than %d", name, len(data), maxStored)
	}
	data = append([]byte(nil), data...)
	_, err = through(ctx, s.door, func() (struct{}, error) {
		return struct{}{}, replaceFile(path, data)
	})
	if err != nil {
		return fmt.Errorf("saving state %s: %w", name, err)
	}
	return nil
}

func (s *DirStore) path(name string) (string, error) {
	if name == "" || strings.ContainsAny(name, "/\\") || strings.HasPrefix(name, ".") {
		return "", fmt.Errorf("state name %q: want a plain file name: %w", clip(name), fs.ErrInvalid)
	}
	return filepath.Join(s.dir, name), nil
}

func replaceFile(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// One fixed temporary name: the door lets one writer in at a time, and a crash leaves one file behind, not many.
	temp := path + ".tmp"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// Gone already when only the directory's sync failed.
			if e := os.Remove(temp); !errors.Is(e, fs.ErrNotExist) {
				err = errors.Join(err, e)
			}
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
