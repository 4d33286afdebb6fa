package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

// output is the -o flag.
type output struct {
	format  string
	allowed []string
}

// The formats of -o.
const (
	formatText = ""
	formatWide = "wide"
	formatJSON = "json"
	formatYAML = "yaml"
	formatName = "name"
)

func (o *output) add(cmd *cobra.Command, allowed ...string) {
	o.allowed = allowed
	cmd.Flags().StringVarP(&o.format, "output", "o", "", "output format: "+strings.Join(allowed, "|"))
}

func (o *output) check() error {
	if o.format != formatText && !slices.Contains(o.allowed, o.format) {
		return usage("-o %s: unknown format; use one of %s", o.format, strings.Join(o.allowed, ", "))
	}
	return nil
}

func (o *output) wide() bool { return o.format == formatWide }

// view is an answer that can be shown as text.
type view interface {
	Render(p *text.Page, wide bool)
}

// show writes an answer in the format asked for. names are what -o name prints.
func (a *app) show(o *output, v view, names []string) error {
	switch o.format {
	case formatJSON, formatYAML:
		return encode(a.Out, o.format, v)
	case formatName:
		for _, name := range names {
			if _, err := fmt.Fprintln(a.Out, name); err != nil {
				return fmt.Errorf("writing the answer: %w", err)
			}
		}
		return nil
	}
	p := a.page()
	v.Render(p, o.wide())
	if a.watching && terminal(a.Out) {
		// Home, and clear: each answer takes the place of the one before.
		if _, err := io.WriteString(a.Out, "\x1b[H\x1b[2J"); err != nil {
			return fmt.Errorf("writing the answer: %w", err)
		}
	}
	_, err := p.WriteTo(a.Out)
	return err
}

func encode(w io.Writer, format string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	data = append(data, '\n')
	if format == formatYAML {
		if data, err = yaml.JSONToYAML(data); err != nil {
			return fmt.Errorf("encoding the answer: %w", err)
		}
	}
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}
