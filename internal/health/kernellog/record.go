// Package kernellog finds faults in the kernel log. It parses records of /dev/kmsg and what the drivers of GPUs, PCI Express
// and the kernel itself say there, folds it into a state that survives a restart of the agent, and says what stands.
//
// Two things are not believed. A record whose facility is not the kernel's own was written by a process. And the name of a
// process in a line was chosen by that process, whoever printed it: names hold commas and colons, so nothing is read there.
// docs/checks/kernel-log.md says what each line means and what clears it.
package kernellog

import (
	"bytes"
	"errors"
	"fmt"
)

// ErrMalformed means that a record has not the form of /dev/kmsg.
var ErrMalformed = errors.New("malformed kernel-log record")

// Record is one record of /dev/kmsg: "prio,seq,usec,flags[,...];text", then lines of properties that begin with a space
// (Documentation/ABI/testing/dev-kmsg of the kernel).
type Record struct {
	// Priority is facility times 8 plus level.
	Priority uint16
	// Seq numbers the records of one boot.
	Seq uint64
	// Usec is microseconds since the boot, by the kernel's own clock.
	Usec uint64
	// Fragment says that the record continues the line before ('c'; '+' on old kernels).
	Fragment bool
	// Text is the message in the kernel's escaped form, \x0a for a newline. It shares memory with what was parsed.
	Text []byte
}

// Facility is 0 for what the kernel itself logged.
func (r Record) Facility() uint16 { return r.Priority >> 3 }

// ParseRecord parses one record. The text is left escaped, so that one record can never look like two lines.
func ParseRecord(b []byte) (Record, error) {
	head, rest, ok := bytes.Cut(b, []byte(";"))
	if !ok {
		return Record{}, fmt.Errorf("%w: no semicolon", ErrMalformed)
	}
	var r Record
	prio, head, ok1 := number(head, ',')
	seq, head, ok2 := number(head, ',')
	usec, flags, ok3 := number(head, ',')
	if !ok1 || !ok2 || !ok3 || prio > 0xffff {
		return Record{}, fmt.Errorf("%w: want prio,seq,usec,flags", ErrMalformed)
	}
	if len(flags) > 0 {
		r.Fragment = flags[0] == 'c' || flags[0] == '+'
	}
	text, _, _ := bytes.Cut(rest, []byte("\n"))
	r.Priority, r.Seq, r.Usec, r.Text = uint16(prio), seq, usec, text
	return r, nil
}

// number reads decimal digits up to the separator and returns what follows it.
func number(b []byte, sep byte) (n uint64, rest []byte, ok bool) {
	for i, c := range b {
		if c == sep {
			return n, b[i+1:], i > 0
		}
		if c < '0' || c > '9' || i == 19 {
			return 0, nil, false
		}
		n = n*10 + uint64(c-'0')
	}
	return 0, nil, false
}

// Unescape undoes the kernel's \xNN. It allocates only when there is something to undo.
func Unescape(b []byte) []byte {
	if !bytes.Contains(b, []byte(`\x`)) {
		return b
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) && b[i+1] == 'x' {
			hi, ok1 := hexDigit(b[i+2])
			lo, ok2 := hexDigit(b[i+3])
			if ok1 && ok2 {
				out = append(out, hi<<4|lo)
				i += 3
				continue
			}
		}
		out = append(out, b[i])
	}
	return out
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// isPacket says that a line is netfilter's of a packet, "PREFIX IN=eth0 OUT= MAC=...": its prefix is whatever somebody wrote
// into a rule (nf_log_dump_packet_common in net/netfilter/nf_log_syslog.c).
func isPacket(text []byte) bool {
	_, after, ok := bytes.Cut(text, []byte("IN="))
	return ok && bytes.Contains(after, []byte(" OUT="))
}
