package machine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestDirStoreKeepsTheLastContent(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "not", "yet", "there")
	s := NewDirStore(dir)
	if _, err := s.Load(ctx, "a.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("nothing saved: want ErrNotExist, got %v", err)
	}
	for _, content := range []string{"one", "two, longer", "3"} {
		if err := s.Save(ctx, "a.json", []byte(content)); err != nil {
			t.Fatal(err)
		}
		got, err := NewDirStore(dir).Load(ctx, "a.json")
		if err != nil || string(got) != content {
			t.Fatalf("Load = %q, %v; want %q", got, err, content)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("temporary files are left: %v, %v", entries, err)
	}
}

func TestDirStoreGoesOnAfterACrashInMidWrite(t *testing.T) {
	dir := t.TempDir()
	s := NewDirStore(dir)
	if err := s.Save(t.Context(), "a", []byte("whole")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a.tmp"), []byte("ha"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(t.Context(), "a"); err != nil || string(got) != "whole" {
		t.Errorf("Load = %q, %v", got, err)
	}
	if err := s.Save(t.Context(), "a", []byte("next")); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(t.Context(), "a"); err != nil || string(got) != "next" {
		t.Errorf("Load = %q, %v", got, err)
	}
}

func TestDirStoreRefuses(t *testing.T) {
	s := NewDirStore(t.TempDir())
	for name, file := range map[string]string{
		"no name": "", "a path": "a/b", "the directory above": "..", "a hidden file": ".a",
	} {
		t.Run(name, func(t *testing.T) {
			if err := s.Save(t.Context(), file, nil); err == nil {
				t.Error("Save took it")
			}
			if _, err := s.Load(t.Context(), file); err == nil {
				t.Error("Load took it")
			}
		})
	}
	t.Run("what is too large", func(t *testing.T) {
		if err := s.Save(t.Context(), "a", make([]byte, maxStored+1)); err == nil {
			t.Error("Save took it")
		}
	})
	t.Run("a directory that is a file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := NewDirStore(file).Save(t.Context(), "a", nil); err == nil {
			t.Error("Save took it")
		}
	})
}

// Two saves must not change places: a save that hangs holds the door, so that no later one overtakes it.
func TestDirStoreDoesNotLetASaveOvertakeAnother(t *testing.T) {
	s := NewDirStore(t.TempDir())
	s.door.busy <- struct{}{} // an earlier save is still out
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Save(ctx, "a", []byte("later")); !errors.Is(err, ErrStuck) {
		t.Fatalf("want ErrStuck, got %v", err)
	}
	<-s.door.busy
	if _, err := s.Load(t.Context(), "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was refused was written: %v", err)
	}
}
