package replay

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	// maxLine bounds a line of a text format, and maxJSONLine one of JSON: an NVML report of 16 GPUs is about 64 KiB. What
	// is longer is cut.
	maxLine     = 64 << 10
	maxJSONLine = 4 << 20
	// maxSample is how much of a file its format is told from.
	maxSample = 64 << 10
)

// ReadOptions say what a file does not.
type ReadOptions struct {
	// Format is told from the file where it is empty.
	Format Format
	// BootTime is when the machine started, for formats that count from there; without it times are since the boot.
	BootTime time.Time
	// Zone is of the formats that have local times; UTC when nil.
	Zone *time.Location
	// Now dates lines that have no year: the first is not after it.
	Now time.Time
}

// Notes is what a reader has to say of a file beside its events.
type Notes struct {
	Format Format `json:"format"`
	// FacilityAssumed says that at least one line did not tell which facility it is of, and was taken for the kernel's. Any
	// process that can open /dev/kmsg can have written it.
	FacilityAssumed bool `json:"facilityAssumed"`
	// SinceBoot says that the file has no time of day: times count from 1970-01-01T00:00:00Z, which stands for its boot.
	SinceBoot bool `json:"sinceBoot,omitempty"`
	// Read counts lines of the file, Foreign those of processes, Cut those that were too long, and Malformed those that
	// could not be read; FirstMalformed says where and why the first of those was.
	Read           uint64 `json:"read"`
	Foreign        uint64 `json:"foreign,omitempty"`
	Cut            uint64 `json:"cut,omitempty"`
	Malformed      uint64 `json:"malformed,omitempty"`
	FirstMalformed string `json:"firstMalformed,omitempty"`
}

// Reader reads a recording as a Source.
type Reader struct {
	name  string
	o     ReadOptions
	in    *bufio.Reader
	notes Notes
	place place
	// held is the line that may yet go on.
	held *Event
	// foreign says that the last line was a process's; what it goes on with is too.
	foreign bool
	ready   []Event
	ended   bool
}

// NewReader reads as much as tells the format.
func NewReader(name string, in io.Reader, o ReadOptions) (*Reader, error) {
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	r := &Reader{name: name, o: o, in: bufio.NewReaderSize(in, maxSample)}
	r.notes.Format = o.Format
	r.place.until = o.Now.Add(24 * time.Hour)
	if o.BootTime.IsZero() {
		r.place.bootTime = time.Unix(0, 0).UTC()
	} else {
		r.place.bootTime = o.BootTime.UTC()
	}
	if o.Format != "" {
		return r, nil
	}
	sample, err := r.in.Peek(maxSample)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(bytes.TrimSpace(sample)) == 0 {
		return nil, fmt.Errorf("%s: nothing is in it; %s", name, looksLike)
	}
	if bytes.HasPrefix(sample, []byte("\x1f\x8b")) {
		return nil, fmt.Errorf("%s: compressed; give it as `zcat FILE | roundhouse-agent replay -`", name)
	}
	lines := bytes.Split(sample, []byte("\n"))
	if len(lines) > 1 && len(sample) == maxSample {
		lines = lines[:len(lines)-1]
	}
	for i := range lines {
		lines[i] = bytes.TrimSuffix(lines[i], []byte("\r"))
	}
	format, ok := detect(lines)
	if !ok {
		return nil, fmt.Errorf("%s:%d: cannot tell what this is; %s", name, firstText(lines), looksLike)
	}
	r.notes.Format = format
	return r, nil
}

// firstText is the number of the first line that is not empty.
func firstText(lines [][]byte) int {
	for i, b := range lines {
		if len(bytes.TrimSpace(b)) > 0 {
			return i + 1
		}
	}
	return 1
}

// Notes is what was noted so far.
func (r *Reader) Notes() Notes { return r.notes }

// Next gives the next event.
func (r *Reader) Next(e *Event) error {
	for len(r.ready) == 0 {
		if r.ended {
			return io.EOF
		}
		if err := r.more(); err != nil {
			return err
		}
	}
	*e = r.ready[0]
	r.ready = r.ready[1:]
	return nil
}

// more reads one line of the file.
func (r *Reader) more() error {
	b, err := r.readLine()
	if errors.Is(err, io.EOF) {
		r.ended = true
		r.release()
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s:%d: %w", r.name, r.notes.Read+1, err)
	}
	r.notes.Read++
	p, err := r.parse(b)
	if err != nil {
		return r.malformed(err)
	}
	if p.what == aContinuation && r.held == nil && !r.foreign {
		// It goes on with nothing: the recording begins in the middle, or is of another format.
		if r.notes.Format == FormatDmesg {
			return r.malformed(errNotDmesg)
		}
		return r.malformed(errNotJournal)
	}
	r.foreign = p.what == aForeign || r.foreign && p.what == aContinuation
	r.take(&p)
	return nil
}

// malformed counts a line that cannot be read, since a recording may begin or end in the middle of one. A fact stream is
// ours, and is not read past an error.
func (r *Reader) malformed(err error) error {
	err = fmt.Errorf("%s:%d: %w", r.name, r.notes.Read, err)
	if r.notes.Format == FormatFacts {
		return err
	}
	if r.notes.Malformed++; r.notes.Malformed == 1 {
		r.notes.FirstMalformed = err.Error()
	}
	return nil
}

func (r *Reader) parse(b []byte) (p parsed, err error) {
	switch r.notes.Format {
	case FormatKmsg:
		return parseKmsg(b)
	case FormatDmesg:
		p, facility, err := parseDmesg(b, r.o.Zone)
		if err == nil && p.what == aLine && !facility {
			r.notes.FacilityAssumed = true
		}
		return p, err
	case FormatJournal:
		p, err = parseJournal(b, r.o.Zone)
		if err == nil && p.what == aLine {
			r.notes.FacilityAssumed = true
		}
		return p, err
	case FormatJournalJSON:
		return parseJournalJSON(b)
	case FormatFacts:
		return parseFact(b)
	}
	return parsed{}, fmt.Errorf("format %q is not known", r.notes.Format)
}

// take makes events of what a line says.
func (r *Reader) take(p *parsed) {
	switch p.what {
	case aSkip:
	case aForeign:
		r.release()
		r.notes.Foreign++
	case aContinuation:
		if r.held != nil && len(r.held.Text) < maxText-8 {
			r.held.Text = Escape(append(r.held.Text, `\x0a`...), p.text)
		}
	case aBoot:
		r.release()
		if e, ok := r.place.boot(p); ok {
			r.ready = append(r.ready, e)
		}
	case aFact:
		r.release()
		r.ready = append(r.ready, p.event)
	case aLine:
		r.release()
		r.line(p)
	}
}

func (r *Reader) line(p *parsed) {
	at, began := r.place.line(p, isBanner(p.text))
	if began != nil {
		if p.hasMono && r.o.BootTime.IsZero() && began.At.Unix() == 0 {
			r.notes.SinceBoot = true
		}
		r.ready = append(r.ready, *began)
	}
	r.held = &Event{
		Kind: Line, At: at, Priority: p.priority, Seq: p.seq, Fragment: p.fragment, Text: escape(nil, p.text, !p.escaped),
	}
	if p.escaped {
		// Such a record is whole: what follows is another.
		r.release()
	}
}

// release hands on the line that was held.
func (r *Reader) release() {
	if r.held != nil {
		r.ready = append(r.ready, *r.held)
		r.held = nil
	}
}

// readLine reads one line without its end. What is beyond the bound is dropped.
func (r *Reader) readLine() ([]byte, error) {
	limit := maxLine
	if r.notes.Format == FormatJournalJSON || r.notes.Format == FormatFacts {
		limit = maxJSONLine
	}
	var line []byte
	cut := false
	for {
		part, err := r.in.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(part) == 0 && line == nil {
			return nil, io.EOF
		}
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		room := max(limit-len(line), 0)
		cut = cut || len(part) > room
		whole := err == nil || errors.Is(err, io.EOF)
		if whole && line == nil {
			line = part[:min(len(part), room)]
		} else {
			line = append(line, part[:min(len(part), room)]...)
		}
		if whole {
			break
		}
	}
	if cut {
		r.notes.Cut++
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")), nil
}
