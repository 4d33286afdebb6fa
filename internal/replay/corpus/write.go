package corpus

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/replay"
)

// LabelsFile is the name of the file of labels, one JSON object a line.
const LabelsFile = "labels.jsonl"

// FileName is the name of a node's log.
func FileName(node string) string { return node + ".kmsg" }

// Write writes the corpus to a directory, which is made where it is not there: a raw kernel log a node, and the labels. Files
// of those names are replaced.
func (c *Corpus) Write(dir string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("writing the corpus: %w", err)
	}
	labels, err := create(filepath.Join(dir, LabelsFile))
	if err != nil {
		return err
	}
	defer func() { err = closing(labels, err) }()
	for i := range c.Nodes() {
		n := c.Node(i)
		if err := writeFile(filepath.Join(dir, FileName(n.Name)), n); err != nil {
			return err
		}
		e := json.NewEncoder(labels)
		for _, l := range n.Labels() {
			if err := e.Encode(l); err != nil {
				return fmt.Errorf("writing the labels: %w", err)
			}
		}
	}
	return nil
}

func create(path string) (*os.File, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("writing the corpus: %w", err)
	}
	return f, nil
}

func closing(f *os.File, err error) error {
	if e := f.Close(); err == nil && e != nil {
		return fmt.Errorf("writing the corpus: %w", e)
	}
	return err
}

func writeFile(path string, n *Node) (err error) {
	f, err := create(path)
	if err != nil {
		return err
	}
	defer func() { err = closing(f, err) }()
	w := bufio.NewWriter(f)
	if err := WriteRaw(w, n); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// WriteRaw writes events as raw records of /dev/kmsg. What is no line is a comment that replay understands.
func WriteRaw(w io.Writer, src replay.Source) error {
	var e replay.Event
	var booted time.Time
	var b []byte
	for {
		err := src.Next(&e)
		if err == io.EOF { //nolint:errorlint // a Source returns io.EOF itself
			return nil
		}
		if err != nil {
			return err
		}
		if e.Kind == replay.Boot {
			booted = e.At
		}
		if b = appendRaw(b[:0], &e, booted); len(b) == 0 {
			continue
		}
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("writing a log: %w", err)
		}
	}
}

func appendRaw(b []byte, e *replay.Event, booted time.Time) []byte {
	at := e.At.Format(time.RFC3339Nano)
	switch e.Kind {
	case replay.Line:
		b = strconv.AppendUint(b, uint64(e.Priority), 10)
		b = append(b, ',')
		b = strconv.AppendUint(b, e.Seq-1, 10)
		b = append(b, ',')
		b = strconv.AppendInt(b, e.At.Sub(booted).Microseconds(), 10)
		b = append(b, ",-;"...)
		return append(append(b, e.Text...), '\n')
	case replay.Boot:
		return fmt.Appendf(b, "# boot %s %s\n", e.BootID, at)
	case replay.AgentStop:
		return fmt.Appendf(b, "# agent stop %s\n", at)
	case replay.AgentStart:
		return fmt.Appendf(b, "# agent start %s\n", at)
	case replay.Reset:
		return fmt.Appendf(b, "# reset %s %s\n", e.Address, at)
	case replay.PCI, replay.NVML:
	}
	return b
}
