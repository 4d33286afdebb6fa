package npd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// The files in testdata have the shapes of those in NPD's config directory (kernel-monitor, abrt-adaptor, docker and disk
// filelog monitors, health-checker, network-problem-monitor), written anew.
func load(t *testing.T, name string) *Config {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(name, data)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFilesOfNPDsShapesAreReadWithoutAWarning(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		if c := load(t, filepath.Base(f)); len(c.Warnings) > 0 {
			t.Errorf("%s: %v", f, c.Warnings)
		}
	}
}

func TestParseLog(t *testing.T) {
	l := load(t, "kernel-monitor.json").Log
	if l.Plugin != Kmsg || l.Lookback != 5*time.Minute || l.Buffer != 10 || !l.Metrics || l.Source != "kernel-monitor" {
		t.Errorf("%+v", l)
	}
	want := []Condition{
		{"KernelDeadlock", "KernelHasNoDeadlock", "no task of the kernel is stuck"}, {"XfsShutdown", "XfsHasNotShutDown", "XFS is up"},
	}
	if diff := cmp.Diff(want, l.Conditions); diff != "" {
		t.Error(diff)
	}
	wantRule := Rule{
		Permanent: true, Condition: "XfsShutdown", Reason: "XfsHasShutdown", Code: "XfsHasShutdown",
		Severity: v1alpha1.SeverityWarning, Recommended: v1alpha1.RecommendNone,
	}
	if diff := cmp.Diff(wantRule, l.Rules[3].Rule); diff != "" {
		t.Error(diff)
	}
	if r := l.Rules[0]; r.Permanent || r.Severity != v1alpha1.SeverityInfo || r.Condition != "" {
		t.Errorf("%+v", r.Rule)
	}
	if got := load(t, "abrt.json").Log; got.Identifier != "abrt-notification" || got.Path != "/var/log/journal" {
		t.Errorf("%+v", got)
	}
}

func TestParsePluginDefaults(t *testing.T) {
	p := load(t, "network-problem.json").Plugin
	if p.Interval != 30*time.Second || p.Timeout != 5*time.Second || p.MaxOutput != 80 || p.Concurrency != 3 ||
		p.MessageChanges || p.SkipInitial || !p.Metrics {
		t.Errorf("%+v", p)
	}
	if r := p.Rules[1]; r.Timeout != 3*time.Second || r.Interval != time.Minute || r.Path != "./config/plugin/dns_problem.sh" {
		t.Errorf("%+v", r)
	}
	if r := p.Rules[0]; r.Interval != 30*time.Second {
		t.Errorf("%+v", r)
	}
}

// oneRule is a log monitor with one rule, with what is given put into it.
func oneRule(top, rule string) string {
	return fmt.Sprintf(`{"plugin":"kmsg",%s "conditions":[{"type":"Bad","reason":"Good","message":"m"}],
"rules":[{"type":"permanent","condition":"Bad","reason":"IsBad","pattern":"bad"%s}]}`, top, rule)
}

func onePlugin(config, rule string) string {
	return fmt.Sprintf(`{"plugin":"custom","pluginConfig":{%s},"conditions":[{"type":"Bad","reason":"Good","message":"m"}],
"rules":[{"type":"permanent","condition":"Bad","reason":"IsBad","path":"/x"%s}]}`, config, rule)
}

func TestErrorsNameTheFileTheFieldAndTheFix(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"no JSON":                      {"{\n\"plugin\": \"kmsg\",\n}", "f.json: is no JSON: line 3"},
		"no plugin":                    {`{}`, "f.json: plugin: is missing; write kmsg"},
		"an unknown plugin":            {`{"plugin":"syslog"}`, `f.json: plugin: is "syslog"; supported are`},
		"a number for a text":          {"{\"plugin\":\"kmsg\",\n\"source\": 5}", "f.json: source: line 2: is a JSON number; write a string"},
		"a text for a list":            {`{"plugin":"kmsg","rules":"x"}`, "f.json: rules: line 1: is a JSON string; write a list"},
		"a pattern that is none":       {oneRule("", `,"pattern":"a(b"`), "f.json: rules[0].pattern: is no RE2 expression"},
		"a pattern that ends escaping": {oneRule("", `,"pattern":"a\\"`), "f.json: rules[0].pattern: is no RE2 expression"},
		"a bad lookback":               {oneRule(`"lookback":"5",`, ""), `f.json: lookback: is "5"; write a duration`},
		"a bad delay":                  {oneRule(`"delay":"soon",`, ""), "f.json: delay: is"},
		"a buffer below zero":          {oneRule(`"bufferSize":-1,`, ""), "f.json: bufferSize: is -1; write 1 to 1000"},
		"a buffer without bound":       {oneRule(`"bufferSize":100000,`, ""), "f.json: bufferSize: is 100000"},
		"journald without a source":    {`{"plugin":"journald"}`, "f.json: pluginConfig.source: is missing"},
		"filelog without a path":       {`{"plugin":"filelog"}`, "f.json: logPath: is missing"},
		"filelog without a format":     {`{"plugin":"filelog","logPath":"/x"}`, "f.json: pluginConfig.timestampFormat: is missing"},
		"filelog without a timestamp": {
			`{"plugin":"filelog","logPath":"/x","pluginConfig":{"timestampFormat":"x"}}`, "f.json: pluginConfig.timestamp: is missing",
		},
		"a condition without a type":   {`{"plugin":"kmsg","conditions":[{"reason":"x"}]}`, "f.json: conditions[0].type: is missing"},
		"an unknown key of our own":    {oneRule("", `,"roundhouse":{"sevrity":"Critical"}`), "f.json: rules[0].roundhouse: json: unknown field"},
		"an unknown severity":          {oneRule("", `,"roundhouse":{"severity":"Fatal"}`), `f.json: rules[0].roundhouse: severity is "Fatal"; write Warning or Critical`},
		"an unknown recommendation":    {oneRule("", `,"roundhouse":{"recommended":"Pray"}`), `recommended is "Pray"; write one of None,`},
		"an empty clear":               {oneRule("", `,"roundhouse":{"clear":{}}`), "clear is empty"},
		"a clear after that is zero":   {oneRule("", `,"roundhouse":{"clear":{"after":"0s"}}`), "clear.after is 0s"},
		"a clear pattern that is none": {oneRule("", `,"roundhouse":{"clear":{"pattern":"("}}`), "clear.pattern is no RE2"},
		"a severity on a temporary problem": {
			`{"plugin":"kmsg","rules":[{"type":"temporary","pattern":"x","reason":"X","roundhouse":{"severity":"Critical"}}]}`,
			"f.json: rules[0].roundhouse: a temporary problem is Info",
		},
		"a rule's time-out above the file's": {onePlugin(`"timeout":"3s"`, `,"timeout":"4s"`), "f.json: rules[0].timeout: is 4s, above pluginConfig.timeout of 3s"},
		"a time-out above the default":       {onePlugin(``, `,"timeout":"6s"`), "f.json: rules[0].timeout: is 6s, above pluginConfig.timeout of 5s"},
		"a time-out of zero":                 {onePlugin(`"timeout":"0s"`, ``), "f.json: pluginConfig.timeout: is 0s"},
		"an interval of zero":                {onePlugin(`"invoke_interval":"0"`, ``), "f.json: pluginConfig.invoke_interval: is 0"},
		"a rule's interval below zero":       {onePlugin(``, `,"invoke_interval":"-1s"`), "f.json: rules[0].invoke_interval: is -1s"},
		"no concurrency":                     {onePlugin(`"concurrency":0`, ``), "f.json: pluginConfig.concurrency: is 0; write 1 to 64"},
		"an output below zero":               {onePlugin(`"max_output_length":-1`, ``), "f.json: pluginConfig.max_output_length: is -1"},
		"no path":                            {onePlugin(``, `,"path":""`), "f.json: rules[0].path: is missing"},
		"a permanent plugin rule without a condition": {
			onePlugin(``, `,"condition":"Worse"`), `f.json: rules[0].condition: "Worse" is not among the conditions; add it`,
		},
		"a clear for a plugin": {onePlugin(``, `,"roundhouse":{"clear":{"after":"1h"}}`), "a plugin's problem ends when it exits 0"},
		"a rule that is null":  {`{"plugin":"custom","rules":[null]}`, "f.json: rules[0]: is null"},
		"an argument with a zero byte": {
			onePlugin(``, `,"args":["a\u0000b"]`), "f.json: rules[0].args:",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("f.json", []byte(tc.in))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v\nwant %s", err, tc.want)
			}
			var ours *Error
			if !errors.As(err, &ours) || ours.File != "f.json" {
				t.Errorf("%T", err)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"an unknown key":             {oneRule(`"lookBehind":"5m",`, ""), "f.json: lookBehind: is not a key of NPD"},
		"an unknown key in a rule":   {oneRule("", `,"patern":"x"`), "f.json: rules[0].patern: is not a key of NPD"},
		"an unknown key of a plugin": {onePlugin(`"retries":3`, ""), "f.json: pluginConfig.retries: is not a key"},
		"a type NPD does not know":   {oneRule("", `,"type":"Permanent"`), `f.json: rules[0].type: is "Permanent", which NPD takes for permanent`},
		"a log rule without a condition": {
			oneRule("", `,"condition":"Worse"`), `f.json: rules[0].condition: "Worse" is not among the conditions, and in NPD`,
		},
		"a reason that is no code":        {oneRule("", `,"reason":"is very-bad 2"`), "the fault's code is isVeryBad2"},
		"a reason that is empty":          {oneRule("", `,"reason":""`), "the fault's code is Unnamed"},
		"an alternation without group":    {oneRule("", `,"pattern":"worse|bad"`), "binds to the last branch"},
		"an empty pattern":                {oneRule("", `,"pattern":""`), "every line matches"},
		"a skip list for the kernel log":  {oneRule(`"skipList":["x"],`, ""), "f.json: skipList: only filelog"},
		"no rules":                        {`{"plugin":"kmsg"}`, "f.json: rules: there are none"},
		"an output longer than is read":   {onePlugin(`"max_output_length":10000`, ``), "more than 4096 bytes are never read"},
		"an interval below a second":      {onePlugin(`"invoke_interval":"10ms"`, ``), "at most every 1s"},
		"two conditions of the same type": {`{"plugin":"kmsg","conditions":[{"type":"A"},{"type":"A"}]}`, `f.json: conditions[1].type: "A" is here twice`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := Parse("f.json", []byte(tc.in))
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(c.Warnings); !strings.Contains(got, tc.want) {
				t.Errorf("%s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestKeysAreReadInAnyCaseAsNPDDoes(t *testing.T) {
	c, err := Parse("f.json", []byte(`{"PLUGIN":"kmsg","BufferSize":3,"RULES":[{"Type":"temporary","REASON":"A","Pattern":"x"}]}`))
	if err != nil || c.Log.Buffer != 3 || len(c.Log.Rules) != 1 || len(c.Warnings) != 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestOurOwnBlock(t *testing.T) {
	c, err := Parse("f.json", []byte(`{"plugin":"kmsg",
"conditions":[{"type":"Bad","roundhouse":{"severity":"Critical","recommended":"Reboot","clear":{"after":"1h"}}}],
"rules":[
 {"type":"permanent","condition":"Bad","reason":"A","pattern":"a"},
 {"type":"permanent","condition":"Bad","reason":"B","pattern":"b","roundhouse":{"severity":"Warning","clear":{"pattern":"b gone"}}},
 {"type":"temporary","reason":"C","pattern":"c","roundhouse":{"clear":{"after":"5m"}}}
]}`))
	if err != nil || len(c.Warnings) > 0 {
		t.Fatal(err, c)
	}
	show := func(r LogRule) string {
		return fmt.Sprint(r.Severity, " ", r.Recommended, " ", r.ClearAfter, " ", r.ClearPattern != nil)
	}
	got := []string{show(c.Log.Rules[0]), show(c.Log.Rules[1]), show(c.Log.Rules[2])}
	want := []string{"Critical Reboot 1h0m0s false", "Warning Reboot 0s true", "Info None 5m0s false"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestValidateFindsAMissingScript(t *testing.T) {
	p := load(t, "network-problem.json").Plugin
	err := p.Validate(func(path string) error {
		if strings.Contains(path, "dns") {
			return fmt.Errorf("stat: %w", fs.ErrNotExist)
		}
		return fs.ErrPermission
	})
	want := `network-problem.json: rules[1].path: "./config/plugin/dns_problem.sh" does not exist`
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Error(err)
	}
	if err := p.Validate(func(string) error { return fs.ErrPermission }); err != nil {
		t.Errorf("what cannot be looked at is for the run to show: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.json")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(oneRule("", `,"roundhouse":{"clear":{"after":"1h","pattern":"x"},"severity":"Critical","recommended":"Reboot"}`)))
	f.Add([]byte(onePlugin(`"skip_initial_status":true`, `,"args":["a"]`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if err != nil {
			if msg := err.Error(); !strings.HasPrefix(msg, "f: ") || len(msg) > 20000 {
				t.Errorf("%q", msg)
			}
			return
		}
		if (c.Log == nil) == (c.Plugin == nil) {
			t.Fatal("not exactly one of two kinds")
		}
		if c.Log != nil {
			b := NewBuffer(c.Log.Buffer)
			b.Push(Line{Text: "bad"})
			for _, r := range c.Log.Rules {
				b.Match(r.Pattern)
				if len(r.Code) == 0 || len(r.Code) > 64 {
					t.Errorf("code %q", r.Code)
				}
			}
		} else if c.Plugin.Concurrency < 1 || c.Plugin.Interval < time.Second || c.Plugin.Timeout <= 0 {
			t.Errorf("%+v", c.Plugin)
		}
	})
}
