package machine

import (
	"errors"
	"time"
)

// ErrFileRotated means that a followed file has ended and the reader stands at the beginning of the next one.
var ErrFileRotated = errors.New("the file was rotated")

// Program says how to run another program once.
type Program struct {
	// Root is a directory that becomes the program's root: the host's, or that of an image's volume. Empty is the agent's
	// own.
	Root string
	// Dir is the working directory, seen from within Root; / when empty.
	Dir string
	// Path is the program's file, seen from within Root; a relative one is below Dir. $PATH is not searched.
	Path string
	Args []string
	// Env is the whole environment but for PATH, HOME and LC_ALL, which are set where it has them not. The agent's own is
	// not handed on: it has addresses and names of credentials.
	Env []string
	// Stdin is what the program can read.
	Stdin []byte
	// Timeout is after how long the program and all of its process group are killed.
	Timeout time.Duration
	// MaxOutput is how many bytes of stdout are kept, and as many of stderr. The rest is read and thrown away.
	MaxOutput int
	// EndWhenFull ends the program, by closing its stdout, when it has written more.
	EndWhenFull bool
}

// Ran is how a program ended.
type Ran struct {
	// Exit is the exit code, or -1 when a signal ended it.
	Exit int
	// State describes the end in words, such as "exit status 1" or "signal: killed".
	State string
	// TimedOut says that it was killed because its time was up.
	TimedOut bool
	// Stdout and Stderr are the first bytes of each.
	Stdout, Stderr []byte
	// Cut says that stdout was longer.
	Cut bool
	// Took is how long it ran.
	Took time.Duration
}

// FilePosition is a place in a file that may be renamed. It can be saved, and holds across restarts.
type FilePosition struct {
	// Device and Inode say which file; both are zero for none.
	Device uint64 `json:"device,omitempty"`
	Inode  uint64 `json:"inode,omitempty"`
	// Offset is in bytes.
	Offset int64 `json:"offset,omitempty"`
	// Mark is a checksum of the bytes before the offset, which tells a file from another that got its inode, or that was
	// written anew in place.
	Mark uint64 `json:"mark,omitempty"`
}

// JournalQuery says which entries to read.
type JournalQuery struct {
	// Directory is the journal's on the host; empty for the default ones.
	Directory string
	// Identifier is the SYSLOG_IDENTIFIER of the entries.
	Identifier string
	// After is the cursor of the last entry that was read; where it is empty, Since is the time of the first to read.
	After string
	Since time.Time
	// Max bounds the entries of one call.
	Max int
}

// JournalEntry is one entry of the journal.
type JournalEntry struct {
	// Cursor names the entry's place.
	Cursor string
	// Time is when journald received it.
	Time time.Time
	// Message is its text.
	Message string
	// Kernel says that it came from the kernel log, and Root that a process of user 0 wrote it. journald adds both itself
	// (systemd.journal-fields(7), trusted fields), while the identifier is whatever the writer says.
	Kernel, Root bool
}
