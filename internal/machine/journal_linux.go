package machine

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

const (
	// journalTimeout bounds one run of journalctl, and journalOutput what is read of it.
	journalTimeout = 8 * time.Second
	journalOutput  = 1 << 20
)

// Journal runs the host's journalctl once. The journal's format changes with systemd (compact mode, zstd, keyed hashes),
// and the host's own tool always reads the host's files; the library it shares code with cannot be linked into a static
// binary without cgo. It does not follow: a process that stays would map the whole journal and have to be watched, while a
// cursor makes one look after the other miss nothing.
func (h *Host) Journal(ctx context.Context, q JournalQuery) (entries []JournalEntry, more bool, err error) {
	ran, err := h.RunProgram(ctx, Program{
		Root: h.hostRoot(), Path: "/usr/bin/journalctl", Args: journalArgs(q), Timeout: journalTimeout, MaxOutput: journalOutput,
		EndWhenFull: true,
	})
	switch {
	case err != nil:
		return nil, false, fmt.Errorf("reading journal: %w", err)
	case ran.TimedOut:
		return nil, false, fmt.Errorf("reading journal: journalctl took more than %s: %w", journalTimeout, ErrStuck)
	case ran.Exit != 0 && !ran.Cut:
		return nil, false, fmt.Errorf("reading journal: journalctl: %s: %s", ran.State, bound(string(ran.Stderr), 200))
	}
	entries, err = ParseJournal(ran.Stdout, ran.Cut)
	more = ran.Cut
	if q.Max > 0 && len(entries) > q.Max {
		entries, more = entries[:q.Max], true
	}
	if err != nil && len(entries) > 0 {
		// What was read stands; the next look, from behind it, reports the error.
		err, more = nil, true
	}
	if len(entries) == 0 && ran.Cut && err == nil {
		err = fmt.Errorf("reading journal: one entry is longer than %d bytes", journalOutput)
	}
	return entries, more, err
}

// journalArgs are journalctl's arguments, of options that systemd 236 and later have.
func journalArgs(q JournalQuery) []string {
	args := []string{
		"--output=json", "--all", "--no-pager", "--quiet", "--output-fields=MESSAGE,_TRANSPORT,_UID",
	}
	if q.Directory != "" {
		args = append(args, "--directory="+q.Directory)
	}
	if q.After != "" {
		args = append(args, "--after-cursor="+q.After)
	} else {
		args = append(args, "--since=@"+strconv.FormatInt(q.Since.Unix(), 10))
	}
	// As a match, so that no identifier is taken for an option or a pattern.
	return append(args, "SYSLOG_IDENTIFIER="+q.Identifier)
}
