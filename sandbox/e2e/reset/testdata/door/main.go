// Command door does in a virtual machine what a test asks of package machine: who holds a device, and the reset of one.
// It reads a question from a file and answers in another.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/sandbox/e2e/reset/ask"
)

func main() {
	host := machine.NewHost(machine.Options{StateDir: "/run/state"})
	for last := 0; ; time.Sleep(50 * time.Millisecond) {
		raw, err := os.ReadFile(ask.QuestionFile)
		var q ask.Question
		if err != nil || json.Unmarshal(raw, &q) != nil || q.ID == last {
			continue // not there yet, or half written
		}
		last = q.ID
		if err := reply(answer(host, q)); err != nil {
			fmt.Fprintln(os.Stderr, "door:", err)
			os.Exit(1)
		}
	}
}

func answer(host *machine.Host, q ask.Question) ask.Answer {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	a := ask.Answer{ID: q.ID}
	var err error
	if q.Way == "" {
		a.Holders, err = host.Holders(ctx, []string{q.Address})
	} else {
		a.Said, err = host.ResetDevices(ctx, []string{q.Address}, q.Way)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

func reply(a ask.Answer) error {
	raw, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := os.WriteFile(ask.AnswerFile+".new", raw, 0o600); err != nil {
		return err
	}
	return os.Rename(ask.AnswerFile+".new", ask.AnswerFile)
}
