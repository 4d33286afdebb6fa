package npd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// block is what stands under "roundhouse" in a rule or a condition. A rule's own goes before its condition's.
type block struct {
	Severity    string      `json:"severity"`
	Recommended string      `json:"recommended"`
	Clear       *clearBlock `json:"clear"`
}

type clearBlock struct {
	After   string `json:"after"`
	Pattern string `json:"pattern"`
}

// readBlock is strict, unlike what NPD reads: a typing error here would silently change what is done to a node.
func readBlock(raw json.RawMessage) (block, error) {
	var b block
	if len(raw) == 0 || string(raw) == "null" {
		return b, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		return b, fmt.Errorf("%w; allowed are severity, recommended and clear{after, pattern}", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return b, errors.New("has something after its end")
	}
	return b, nil
}

// over is b where it says something, and under elsewhere.
func (b block) over(under block) block {
	if b.Severity == "" {
		b.Severity = under.Severity
	}
	if b.Recommended == "" {
		b.Recommended = under.Recommended
	}
	if b.Clear == nil {
		b.Clear = under.Clear
	}
	return b
}

// severity is Warning unless the block says Critical.
func (b block) severity() (v1alpha1.Severity, error) {
	switch s := v1alpha1.Severity(b.Severity); s {
	case "":
		return v1alpha1.SeverityWarning, nil
	case v1alpha1.SeverityWarning, v1alpha1.SeverityCritical:
		return s, nil
	case v1alpha1.SeverityInfo:
	}
	return "", fmt.Errorf("severity is %q; write Warning or Critical, or make the rule temporary for Info", clip(b.Severity))
}

// recommendations are all there are.
var recommendations = []v1alpha1.Recommendation{
	v1alpha1.RecommendNone, v1alpha1.RecommendRestartApplication, v1alpha1.RecommendRestartDriver,
	v1alpha1.RecommendResetDevice, v1alpha1.RecommendReboot, v1alpha1.RecommendPowerCycle, v1alpha1.RecommendReplace,
	v1alpha1.RecommendHuman,
}

func (b block) recommended() (v1alpha1.Recommendation, error) {
	if b.Recommended == "" {
		return v1alpha1.RecommendNone, nil
	}
	names := make([]string, 0, len(recommendations))
	for _, r := range recommendations {
		if string(r) == b.Recommended {
			return r, nil
		}
		names = append(names, string(r))
	}
	return "", fmt.Errorf("recommended is %q; write one of %s", clip(b.Recommended), strings.Join(names, ", "))
}

// clearing is what ends a problem of a log monitor.
func (b block) clearing() (after time.Duration, pattern *Pattern, err error) {
	if b.Clear == nil {
		return 0, nil, nil
	}
	if b.Clear.After == "" && b.Clear.Pattern == "" {
		return 0, nil, errors.New("clear is empty; give after, pattern or both, or remove it")
	}
	if b.Clear.After != "" {
		if after, err = duration(b.Clear.After); err == nil && after <= 0 {
			err = fmt.Errorf("is %s; write a duration above zero, such as 1h", b.Clear.After)
		}
		if err != nil {
			return 0, nil, fmt.Errorf("clear.after %w", err)
		}
	}
	if b.Clear.Pattern != "" {
		if pattern, err = CompilePattern(b.Clear.Pattern); err != nil {
			return 0, nil, fmt.Errorf("clear.pattern %w", err)
		}
	}
	return after, pattern, nil
}

// duration reads a Go duration within bounds.
func duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("is %q; write a duration such as 30s, 5m or 1h30m", clip(s))
	}
	if d > MaxDuration || d < -MaxDuration {
		return 0, fmt.Errorf("is %s; at most %s is allowed", s, MaxDuration)
	}
	return d, nil
}

// clip bounds what of the input an error repeats.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
