package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const helloFrame = `{"hello":{"protocol":1,"version":"v0.1.0"}}` + "\n"

func TestWhatIsEncodedIsDecoded(t *testing.T) {
	link := func(n int) NVMLLink {
		count := uint64(1) << 40
		return NVMLLink{Link: n, Active: true, RemoteType: "Switch", Remote: "0000:05:00.0", Replays: &count}
	}
	yes, health := true, uint32(0x155)
	gpu := NVMLGPU{
		Index: 3, Lost: "RESET_REQUIRED", Address: "0000:18:00.0", UUID: "GPU-00000001-0000-4000-8000-000000000001",
		Model: "NVIDIA H200", MIG: &yes, Instances: []MIGPart{{"MIG-1", 7, 0}}, ECC: &NVMLECC{Enabled: &yes},
		Remap: &NVMLRemap{Failed: true}, Links: []NVMLLink{link(0), link(17)},
		Fabric: &NVMLFabric{State: 3, Status: "UNKNOWN", Health: &health}, Unread: map[string]string{"nvmlDeviceGetSerial": "NOT_SUPPORTED"},
	}
	lost := NVMLGPU{Index: 1, Handle: "GPU_IS_LOST", Lost: "GPU_IS_LOST"}
	report := NVMLReport{Library: "/usr/lib64/libnvidia-ml.so.1", Driver: "570.133.20", NVML: "12.570.133.20", Count: 4}

	var out bytes.Buffer
	encoder, err := NewNVMLEncoder(&out, "v0.1.0")
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(encoder.Machine(report), encoder.GPU(NVMLGPU{Index: 3, UUID: "GPU-early"}), encoder.GPU(gpu), encoder.GPU(lost),
		encoder.End(NVMLEnd{Took: 17}))
	if err != nil {
		t.Fatal(err)
	}
	out.WriteString("what follows the end is not read")
	got, end, err := DecodeNVML(&out)
	if err != nil || end == nil || *end != (NVMLEnd{Took: 17}) {
		t.Errorf("end %v, %v", end, err)
	}
	report.GPUs, report.Took = []NVMLGPU{lost, gpu}, 17
	if diff := cmp.Diff(report, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOutputThatIsNotUnderstood(t *testing.T) {
	long := strings.Repeat("x", maxNVMLText+1)
	var links, parts, unread []string
	for i := range MaxNVMLLinks + 1 {
		links = append(links, fmt.Sprintf(`{"link":%d}`, i))
	}
	for range MaxMIGParts + 1 {
		parts = append(parts, `{"uuid":"MIG"}`)
	}
	for i := range maxNVMLUnread + 1 {
		unread = append(unread, fmt.Sprintf(`"call%d":"UNKNOWN"`, i))
	}
	tests := map[string]struct{ input, says string }{
		"nothing":                     {"", "unexpected EOF"},
		"a hello and no more":         {helloFrame, "unexpected EOF"},
		"no hello":                    {`{"end":{}}`, "want a hello first"},
		"another version's hello":     {`{"hello":{"protocol":2,"version":"v2","new":true},"also":"new"}`, "helper v2 speaks protocol 2, want 1: install"},
		"no JSON":                     {helloFrame + "Segmentation fault", "frame 2: Segmentation fault: invalid character"},
		"a frame of no kind":          {helloFrame + `{"power":{}}`, `unknown field "power"`},
		"a frame of two kinds":        {helloFrame + `{"gpu":{"index":0},"end":{}}`, "want one of machine (once), gpu and end"},
		"an empty frame":              {helloFrame + `{}`, "want one of machine"},
		"a second hello":              {helloFrame + helloFrame, "want one of machine"},
		"two machines":                {helloFrame + `{"machine":{"count":1}}` + "\n" + `{"machine":{"count":2}}`, "frame 3"},
		"a count below zero":          {helloFrame + `{"machine":{"count":-1}}`, "count -1: want 0 to 1024"},
		"a GPU below zero":            {helloFrame + `{"gpu":{"index":-1}}`, "GPU -1: index: want 0 to 63"},
		"a GPU too many":              {helloFrame + `{"gpu":{"index":64}}`, "GPU 64: index: want 0 to 63"},
		"too many links":              {helloFrame + `{"gpu":{"index":0,"links":[` + strings.Join(links, ",") + `]}}`, "37 links: want at most 36"},
		"a link twice":                {helloFrame + `{"gpu":{"index":0,"links":[{"link":1},{"link":1}]}}`, "link 1: want each once, in order"},
		"a link that cannot be":       {helloFrame + `{"gpu":{"index":0,"links":[{"link":36}]}}`, "link 36: want each once, in order, 0 to 35"},
		"too many MIG devices":        {helloFrame + `{"gpu":{"index":0,"instances":[` + strings.Join(parts, ",") + `]}}`, "65 instances: want at most 64"},
		"too much unread":             {helloFrame + `{"machine":{"unread":{` + strings.Join(unread, ",") + `}}}`, "257 unread: want at most 256"},
		"a long name":                 {helloFrame + `{"gpu":{"index":0,"model":"` + long + `"}}`, "model: 257 bytes, want at most 256"},
		"a long name of what failed":  {helloFrame + `{"gpu":{"index":0,"unread":{"x":"` + long + `"}}}`, "unread: 257 bytes, want at most 256"},
		"a long name in a link":       {helloFrame + `{"gpu":{"index":0,"links":[{"link":0,"remote":"` + long + `"}]}}`, "link's remote: 257 bytes"},
		"a long name in the fabric":   {helloFrame + `{"gpu":{"index":0,"fabric":{"state":0,"clique":0,"cluster":"` + long + `"}}}`, "fabric's cluster: 257 bytes"},
		"a long line":                 {helloFrame + `{"gpu":{"model":"` + strings.Repeat("x", maxNVMLLine), "a line of more than 65536 bytes"},
		"a number that is too large":  {helloFrame + `{"gpu":{"index":0,"recovery":4294967296}}`, "recovery"},
		"frames without an end":       {helloFrame + strings.Repeat(`{"gpu":{"index":0}}`+"\n", maxNVMLFrames), "more than 131"},
		"a long reason for no report": {helloFrame + `{"end":{"missing":"` + strings.Repeat(long, 16) + `"}}`, "missing: 4112 bytes"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, err := DecodeNVML(strings.NewReader(tt.input))
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q in it", err, tt.says)
			}
			if early := errors.Is(err, io.ErrUnexpectedEOF); early == errors.Is(err, errNVMLProtocol) {
				t.Errorf("%v: want either an early end or what is not understood", err)
			}
		})
	}
}

func TestWhatCameBeforeAnErrorIsKept(t *testing.T) {
	got, _, err := DecodeNVML(strings.NewReader(helloFrame + `{"machine":{"driver":"570.1","count":2}}` + "\n" +
		`{"gpu":{"index":1,"uuid":"GPU-1"}}` + "\n" + `{"gpu":{"index":1,"model":"` + strings.Repeat("x", 300) + `"}}`))
	if err == nil || got.Driver != "570.1" || len(got.GPUs) != 1 || got.GPUs[0].UUID != "GPU-1" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestNotes(t *testing.T) {
	tests := map[string]struct {
		note string
		want NVMLCall
		says string
	}{
		"a call about a GPU":       {string(AppendNVMLNote(nil, NVMLCall{"nvmlDeviceGetName", 3})), NVMLCall{"nvmlDeviceGetName", 3}, "nvmlDeviceGetName of GPU 3"},
		"a call about the machine": {string(AppendNVMLNote(nil, NVMLCall{"nvmlInit", -1})), NVMLCall{"nvmlInit", -1}, "nvmlInit"},
		"none yet":                 {"", NVMLCall{GPU: -1}, "before the first call"},
		"zeroes":                   {strings.Repeat("\x00", NVMLNoteSize), NVMLCall{GPU: -1}, "before the first call"},
		"half a note":              {`{"call":"nvmlDevi`, NVMLCall{"an unknown call", -1}, "an unknown call"},
		"a GPU that cannot be":     {`{"call":"nvmlDeviceGetName","gpu":64}`, NVMLCall{"an unknown call", -1}, "an unknown call"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := ParseNVMLNote([]byte(tt.note)); got != tt.want || got.String() != tt.says {
				t.Errorf("got %+v, %s", got, got)
			}
		})
	}
	long := AppendNVMLNote(nil, NVMLCall{strings.Repeat("x", 1000), 63})
	if got := ParseNVMLNote(long); len(long) != NVMLNoteSize || got.GPU != 63 || !strings.HasPrefix(got.Name, "xxx") {
		t.Errorf("a long name: %d bytes, %+v", len(long), got)
	}
}

func FuzzDecodeNVML(f *testing.F) {
	f.Add([]byte(helloFrame + `{"machine":{"library":"/usr/lib64/libnvidia-ml.so.1","driver":"570.133.20","count":1}}` + "\n" +
		`{"gpu":{"index":0,"address":"0000:18:00.0","uuid":"GPU-1","recovery":0,"links":[{"link":0,"active":true,"crc":1}]}}` + "\n" +
		`{"end":{"tookMs":4}}` + "\n"))
	f.Add([]byte(helloFrame + `{"end":{"missing":"neither here nor there"}}`))
	f.Add([]byte(helloFrame + `{"machine":{"init":"DRIVER_NOT_LOADED","count":0}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		report, end, err := DecodeNVML(bytes.NewReader(data))
		if (err == nil) != (end != nil) {
			t.Fatalf("end %v, error %v", end, err)
		}
		if len(report.GPUs) > MaxNVMLGPUs || report.Count > maxNVMLCount {
			t.Fatalf("%d GPUs, count %d", len(report.GPUs), report.Count)
		}
		for i := range report.GPUs {
			if err := report.GPUs[i].check(); err != nil {
				t.Fatal(err)
			}
			if i > 0 && report.GPUs[i].Index <= report.GPUs[i-1].Index {
				t.Fatal("the GPUs are not in order")
			}
		}
	})
}

func FuzzParseNVMLNote(f *testing.F) {
	f.Add(AppendNVMLNote(nil, NVMLCall{"nvmlDeviceGetName", 3}))
	f.Add([]byte(`{"call":"nvmlInit","gpu":-1}`))
	f.Fuzz(func(t *testing.T, note []byte) {
		if got := ParseNVMLNote(note); got.GPU < -1 || got.GPU >= MaxNVMLGPUs || len(got.Name) > NVMLNoteSize {
			t.Fatalf("%+v", got)
		}
	})
}
