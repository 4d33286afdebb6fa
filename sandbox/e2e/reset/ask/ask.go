// Package ask is what the tests of resets and their program in the virtual machine say to each other.
package ask

import "github.com/roundhouse-dev/roundhouse/internal/machine"

// The files that carry question and answer in the guest.
const (
	QuestionFile = "/run/question.json"
	AnswerFile   = "/run/answer.json"
)

// Question asks who holds the device at an address or, with a way, for its reset.
type Question struct {
	ID      int
	Address string
	Way     machine.ResetWay
}

// Answer is what came of it.
type Answer struct {
	ID      int
	Holders []machine.Holder
	Said    string
	Error   string
}
