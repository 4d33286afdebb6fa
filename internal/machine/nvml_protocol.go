package machine

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// The NVML helper writes frames to its standard output: one JSON object a line, of which exactly one of the fields of
// nvmlFrame is set. The first is a hello with the protocol's version, then comes what is true of the whole machine, then
// each GPU, and at last an end. A GPU may come twice, first with its identity only and then with everything; the later
// frame replaces the earlier. Helper and agent come from one build, so a protocol of another number is refused.
//
// The call that the helper is about to make is not a frame but a note (NVMLCall), rewritten in place in a file that the
// agent looks into only when something went wrong: a write to a pipe before each of a thousand calls would wake the agent
// a thousand times.
const nvmlProtocol = 1

// Bounds of a report. NVML itself has at most 36 NVLinks a GPU (NVML_NVLINK_MAX_LINKS of nvml.h).
const (
	MaxNVMLGPUs  = 64
	MaxNVMLLinks = 36
	MaxMIGParts  = 64

	maxNVMLLine   = 64 << 10
	maxNVMLFrames = 2*MaxNVMLGPUs + 3
	maxNVMLUnread = 256
	maxNVMLText   = 256
	maxNVMLCount  = 1024
)

// errNVMLProtocol is what every error about the helper's output wraps.
var errNVMLProtocol = errors.New("the NVML helper's output is not understood")

type nvmlFrame struct {
	Hello   *nvmlHello  `json:"hello,omitempty"`
	Machine *NVMLReport `json:"machine,omitempty"`
	GPU     *NVMLGPU    `json:"gpu,omitempty"`
	End     *NVMLEnd    `json:"end,omitempty"`
}

type nvmlHello struct {
	Protocol int    `json:"protocol"`
	Version  string `json:"version,omitempty"`
}

// NVMLEnd is the helper's last word.
type NVMLEnd struct {
	// Missing says that there is no library, and where it was looked for.
	Missing string `json:"missing,omitempty"`
	// Failed says why the helper could not ask the library although there is one.
	Failed string `json:"failed,omitempty"`
	// Took is how long the helper ran, in milliseconds.
	Took int64 `json:"tookMs,omitempty"`
}

// NVMLEncoder writes the helper's frames.
type NVMLEncoder struct{ w io.Writer }

// NewNVMLEncoder writes the hello of the helper's version and returns what writes the rest. Each frame is one write.
func NewNVMLEncoder(w io.Writer, version string) (*NVMLEncoder, error) {
	e := &NVMLEncoder{w}
	return e, e.write(nvmlFrame{Hello: &nvmlHello{nvmlProtocol, version}})
}

// Machine writes what is true of the whole machine; the report's GPUs are written one by one with GPU.
func (e *NVMLEncoder) Machine(r NVMLReport) error {
	r.GPUs = nil
	return e.write(nvmlFrame{Machine: &r})
}

// GPU writes one GPU.
func (e *NVMLEncoder) GPU(g NVMLGPU) error { return e.write(nvmlFrame{GPU: &g}) }

// End writes the last frame.
func (e *NVMLEncoder) End(end NVMLEnd) error { return e.write(nvmlFrame{End: &end}) }

func (e *NVMLEncoder) write(f nvmlFrame) error {
	line, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("writing a frame: %w", err)
	}
	if _, err := e.w.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("writing a frame: %w", err)
	}
	return nil
}

// DecodeNVML reads the helper's frames until the end frame, which it returns, or until the input ends or is not
// understood. The report is what was read up to there in any case.
func DecodeNVML(r io.Reader) (report NVMLReport, end *NVMLEnd, err error) {
	d := nvmlDecoder{gpus: make(map[int]NVMLGPU)}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4<<10), maxNVMLLine)
	for n := 1; d.end == nil && err == nil && lines.Scan(); n++ {
		if err = d.line(n, lines.Bytes()); err != nil {
			err = fmt.Errorf("%w: frame %d: %w", errNVMLProtocol, n, err)
		}
	}
	if err == nil {
		err = lines.Err()
	}
	switch {
	case errors.Is(err, bufio.ErrTooLong):
		err = fmt.Errorf("%w: a line of more than %d bytes", errNVMLProtocol, maxNVMLLine)
	case err == nil && d.end == nil:
		err = io.ErrUnexpectedEOF
	}
	for _, index := range slices.Sorted(maps.Keys(d.gpus)) {
		d.report.GPUs = append(d.report.GPUs, d.gpus[index])
	}
	if d.end != nil {
		d.report.Took = d.end.Took
	}
	return d.report, d.end, err
}

type nvmlDecoder struct {
	report  NVMLReport
	machine bool
	gpus    map[int]NVMLGPU
	end     *NVMLEnd
}

func (d *nvmlDecoder) line(n int, line []byte) error {
	if n > maxNVMLFrames {
		return fmt.Errorf("more than %d", maxNVMLFrames)
	}
	var f nvmlFrame
	decoder := json.NewDecoder(bytes.NewReader(line))
	// A field that is not known here is unknown only to another version, and those begin with another hello. Of a hello
	// itself the number alone has to be understood.
	if n > 1 {
		decoder.DisallowUnknownFields()
	}
	if err := decoder.Decode(&f); err != nil {
		return fmt.Errorf("%s: %w", clip(string(line)), err)
	}
	if n == 1 {
		return checkHello(f.Hello)
	}
	// What is not within bounds must not get in, nor replace what is there.
	switch {
	case f.Machine != nil && !d.machine && f.GPU == nil && f.End == nil && f.Hello == nil:
		if err := checkMachine(f.Machine); err != nil {
			return fmt.Errorf("machine: %w", err)
		}
		d.machine, d.report = true, *f.Machine
		d.report.GPUs = nil
	case f.GPU != nil && f.End == nil && f.Hello == nil && f.Machine == nil:
		if err := f.GPU.check(); err != nil {
			return fmt.Errorf("GPU %d: %w", f.GPU.Index, err)
		}
		d.gpus[f.GPU.Index] = *f.GPU
	case f.End != nil && f.Hello == nil && f.Machine == nil && f.GPU == nil:
		d.end = f.End
		return texts{{"missing", f.End.Missing}, {"failed", f.End.Failed}}.check(16 * maxNVMLText)
	default:
		return fmt.Errorf("%s: want one of machine (once), gpu and end", clip(string(line)))
	}
	return nil
}

func checkHello(h *nvmlHello) error {
	switch {
	case h == nil:
		return errors.New("want a hello first: is this the helper at all?")
	case h.Protocol != nvmlProtocol:
		return fmt.Errorf("helper %s speaks protocol %d, want %d: install helper and agent of one version",
			clip(h.Version), h.Protocol, nvmlProtocol)
	}
	return nil
}

func checkMachine(r *NVMLReport) error {
	if r.Count < 0 || r.Count > maxNVMLCount {
		return fmt.Errorf("count %d: want 0 to %d", r.Count, maxNVMLCount)
	}
	return errors.Join(
		texts{{"library", r.Library}, {"init", r.Init}, {"driver", r.Driver}, {"nvml", r.NVML}}.check(16*maxNVMLText),
		checkUnread(r.Unread),
	)
}

func (g *NVMLGPU) check() error {
	switch {
	case g.Index < 0 || g.Index >= MaxNVMLGPUs:
		return fmt.Errorf("index: want 0 to %d", MaxNVMLGPUs-1)
	case len(g.Links) > MaxNVMLLinks:
		return fmt.Errorf("%d links: want at most %d", len(g.Links), MaxNVMLLinks)
	case len(g.Instances) > MaxMIGParts:
		return fmt.Errorf("%d instances: want at most %d", len(g.Instances), MaxMIGParts)
	}
	named := texts{
		{"handle", g.Handle}, {"lost", g.Lost}, {"address", g.Address}, {"uuid", g.UUID}, {"serial", g.Serial},
		{"model", g.Model}, {"vbios", g.VBIOS},
	}
	for _, part := range g.Instances {
		named = append(named, text{"instance's uuid", part.UUID})
	}
	for i, link := range g.Links {
		if link.Link < 0 || link.Link >= MaxNVMLLinks || i > 0 && link.Link <= g.Links[i-1].Link {
			return fmt.Errorf("link %d: want each once, in order, 0 to %d", link.Link, MaxNVMLLinks-1)
		}
		named = append(named, text{"link's remoteType", link.RemoteType}, text{"link's remote", link.Remote})
	}
	if g.Fabric != nil {
		named = append(named, text{"fabric's status", g.Fabric.Status}, text{"fabric's cluster", g.Fabric.Cluster})
	}
	return errors.Join(named.check(maxNVMLText), checkUnread(g.Unread))
}

func checkUnread(unread map[string]string) error {
	if len(unread) > maxNVMLUnread {
		return fmt.Errorf("%d unread: want at most %d", len(unread), maxNVMLUnread)
	}
	for call, name := range unread {
		if err := (texts{{"unread", call}, {"unread", name}}).check(maxNVMLText); err != nil {
			return err
		}
	}
	return nil
}

// texts are named strings that came over the pipe.
type texts []text

type text struct{ name, value string }

func (t texts) check(most int) error {
	for _, s := range t {
		if len(s.value) > most {
			return fmt.Errorf("%s: %d bytes, want at most %d", s.name, len(s.value), most)
		}
	}
	return nil
}

// NVMLNoteSize is the size of the note: long enough for the longest name of a call.
const NVMLNoteSize = 128

// AppendNVMLNote appends the note for a call, NVMLNoteSize bytes.
func AppendNVMLNote(to []byte, c NVMLCall) []byte {
	start := len(to)
	to = fmt.Appendf(to, `{"call":%q,"gpu":%d}`, bound(c.Name, NVMLNoteSize-32), c.GPU)
	for len(to) < start+NVMLNoteSize-1 {
		to = append(to, ' ')
	}
	return append(to, '\n')
}

// ParseNVMLNote reads a note. An empty one is a helper that has made no call yet; one that is not understood, which may be
// half written, is a call of unknown name.
func ParseNVMLNote(note []byte) NVMLCall {
	if len(bytes.Trim(note, "\x00 \n")) == 0 {
		return NVMLCall{GPU: -1}
	}
	c := NVMLCall{GPU: -1}
	if err := json.Unmarshal(note, &c); err != nil || len(c.Name) > NVMLNoteSize || c.GPU < -1 || c.GPU >= MaxNVMLGPUs {
		return NVMLCall{Name: "an unknown call", GPU: -1}
	}
	return c
}
