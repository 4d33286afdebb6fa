// Package program begins the small programs that the agent starts beside itself: flags, a version, and no arguments.
package program

import (
	"flag"
	"fmt"
	"io"
)

// Flags makes the set of a program's flags; what it has to say about them goes to stderr.
func Flags(name string, stderr io.Writer) *flag.FlagSet {
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	set.SetOutput(stderr)
	return set
}

// Parse reads the flags, -version among them. Done says that the version was asked for and printed: there is nothing more to
// do. Where help was asked for, the error is flag.ErrHelp.
func Parse(set *flag.FlagSet, version string, args []string, stdout io.Writer) (done bool, err error) {
	asked := set.Bool("version", false, "print the version and exit")
	if err := set.Parse(args); err != nil {
		return false, err
	}
	if *asked {
		_, err := fmt.Fprintln(stdout, set.Name(), version)
		return true, err
	}
	if set.NArg() > 0 {
		return false, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	return false, nil
}
