package npd

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	config "github.com/roundhouse-dev/roundhouse/internal/npd"
)

// FuzzSplit holds that lines are the same however a file's bytes arrive.
func FuzzSplit(f *testing.F) {
	f.Add([]byte("one\ntwo\n\nthree"), 3)
	f.Add([]byte("\xff\xfe\n\x00gr\xc3\xbcn\n"), 1)
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		if size < 1 || len(data) > 4096 {
			return
		}
		lines := func(size int) []config.Line {
			c, err := config.Parse("f", []byte(`{"plugin":"filelog","logPath":"/l","bufferSize":1000,"pluginConfig":{"timestamp":"^()","message":"(?s)(.*)","timestampFormat":" "},
"rules":[{"type":"temporary","reason":"A","pattern":"never"}]}`))
			if err != nil {
				t.Fatal(err)
			}
			// A format of one space takes no time at all for a time, so that every line is taken.
			m := &LogMonitor{o: LogOptions{Config: c.Log, Now: time.Now, Location: time.UTC}, buffer: config.NewBuffer(1000)}
			s := &fileSource{m: m}
			for rest := data; len(rest) > 0; {
				n := min(size, len(rest))
				s.split(rest[:n])
				rest = rest[n:]
			}
			s.endLine()
			return append(m.buffer.Lines(), config.Line{Text: time.Duration(m.stats.Unread).String()})
		}
		if diff := cmp.Diff(lines(len(data)+1), lines(size)); diff != "" {
			t.Error(diff)
		}
	})
}
