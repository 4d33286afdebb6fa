package replay

import (
	"bytes"
	"time"
)

// facilities and levels are the names that dmesg -x prints (util-linux, sys-utils/dmesg.c); their places are their numbers.
var (
	facilities = []string{
		"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
		"res0", "res1", "res2", "res3", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
	}
	levels = []string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"}
)

// ctime is how dmesg -T writes a time.
const ctime = "Mon Jan _2 15:04:05 2006"

// parseDmesg reads one line of dmesg, with or without -x (facility and level as words), -r (as <number>) and -T (the time
// of day, in the zone given). A line without a time goes on with the text of the line before: dmesg indents those. facility
// says that the line told whose it is; the number of -r does so only from 8 on, since dmesg of many releases leaves the
// facility out of it or mixes it into the level.
func parseDmesg(b []byte, zone *time.Location) (p parsed, facility bool, err error) {
	p = parsed{what: aLine, priority: kernelPriority}
	if len(bytes.TrimSpace(b)) == 0 {
		return parsed{what: aSkip}, false, nil
	}
	rest := b
	if r, priority, ok := rawPriority(rest); ok {
		rest, p.priority, facility = r, priority, priority >= 8
	} else if r, priority, ok := wordPriority(rest); ok {
		rest, p.priority, facility = r, priority, true
	}
	inside, text, ok := bracketed(rest)
	if !ok {
		return parsed{what: aContinuation, text: bytes.TrimLeft(b, " \t")}, false, nil
	}
	if mono, ok := seconds(bytes.TrimLeft(inside, " ")); ok {
		p.mono, p.hasMono = mono, true
	} else if at, err := time.ParseInLocation(ctime, string(inside), zone); err == nil {
		if err := sane(at); err != nil {
			return parsed{}, false, err
		}
		p.wall = at.UTC()
	} else {
		return parsed{what: aContinuation, text: bytes.TrimLeft(b, " \t")}, false, nil
	}
	p.text = withoutCaller(text)
	return p, facility, nil
}

// rawPriority reads "<4>".
func rawPriority(b []byte) (rest []byte, priority uint16, ok bool) {
	b, ok = bytes.CutPrefix(b, []byte("<"))
	if !ok {
		return nil, 0, false
	}
	n, b, ok := digits(b, 4)
	if !ok {
		return nil, 0, false
	}
	rest, ok = bytes.CutPrefix(b, []byte(">"))
	return rest, uint16(n), ok
}

// wordPriority reads "kern  :warn  : ".
func wordPriority(b []byte) (rest []byte, priority uint16, ok bool) {
	f, b, ok1 := word(b, facilities)
	l, b, ok2 := word(b, levels)
	if !ok1 || !ok2 {
		return nil, 0, false
	}
	return bytes.TrimLeft(b, " "), uint16(f<<3 | l), true
}

// word reads one of the words, padded with spaces, and a colon.
func word(b []byte, words []string) (n int, rest []byte, ok bool) {
	i := bytes.IndexByte(b[:min(len(b), 16)], ':')
	if i < 0 {
		return 0, nil, false
	}
	name := string(bytes.TrimSpace(b[:i]))
	for n, w := range words {
		if w == name {
			return n, b[i+1:], true
		}
	}
	return 0, nil, false
}

// bracketed reads "[...] text".
func bracketed(b []byte) (inside, text []byte, ok bool) {
	if len(b) == 0 || b[0] != '[' {
		return nil, nil, false
	}
	i := bytes.IndexByte(b[:min(len(b), 40)], ']')
	if i < 0 {
		return nil, nil, false
	}
	return b[1:i], bytes.TrimPrefix(b[i+1:], []byte(" ")), true
}

// seconds reads "12.345678", seconds since the boot.
func seconds(b []byte) (time.Duration, bool) {
	whole, b, ok := digits(b, 10)
	if !ok || len(b) < 2 || b[0] != '.' || whole > int64(maxMono/time.Second) {
		return 0, false
	}
	fraction := b[1:]
	n, rest, ok := digits(fraction, 9)
	if !ok || len(rest) > 0 {
		return 0, false
	}
	for range 9 - len(fraction) {
		n *= 10
	}
	d := time.Duration(whole)*time.Second + time.Duration(n)
	return d, true
}

// withoutCaller drops the "[   T123] " or "[    C0] " that a kernel with CONFIG_PRINTK_CALLER adds.
func withoutCaller(text []byte) []byte {
	inside, rest, ok := bracketed(text)
	if !ok {
		return text
	}
	inside = bytes.TrimLeft(inside, " ")
	if len(inside) < 2 || inside[0] != 'T' && inside[0] != 'C' {
		return text
	}
	if _, left, ok := digits(inside[1:], 10); !ok || len(left) > 0 {
		return text
	}
	return rest
}
