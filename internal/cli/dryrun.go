package cli

import "github.com/spf13/cobra"

// The values of --dry-run, kubectl's.
const (
	dryRunNone   = "none"
	dryRunClient = "client"
	dryRunServer = "server"
)

func addDryRun(cmd *cobra.Command, value *string) {
	cmd.Flags().StringVar(value, "dry-run", dryRunNone, "none, server (the server checks it and keeps nothing) or client (say it only)")
	cmd.Flags().Lookup("dry-run").NoOptDefVal = dryRunClient
}

func checkDryRun(value string) error {
	switch value {
	case dryRunNone, dryRunClient, dryRunServer:
		return nil
	}
	return usage("--dry-run=%s: use none, server or client", value)
}

func dryRunNote(value string) string {
	if value == dryRunNone {
		return ""
	}
	return " (dry run: nothing was changed)"
}
