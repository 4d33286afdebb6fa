package redfish

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stmcginnis/gofish/schemas"
)

// plan is how the power is taken away and given back.
type plan struct {
	// first is posted by Begin, once.
	first schemas.ResetType
	// on is what turns the system on when it is off; empty where nothing does.
	on schemas.ResetType
}

// inTwo says whether the power comes back only when we ask for it.
func (p plan) inTwo() bool { return p.first == schemas.ForceOffResetType }

// makePlan chooses by what the system takes. ForceRestart and GracefulRestart are no power cycles: the processor starts
// anew, but the devices keep their power, and a device that hangs goes on hanging.
func makePlan(state schemas.PowerState, takes []schemas.ResetType) (plan, error) {
	var p plan
	for _, on := range []schemas.ResetType{schemas.OnResetType, schemas.ForceOnResetType} {
		if p.on == "" && slices.Contains(takes, on) {
			p.on = on
		}
	}
	switch {
	case state == "":
		return p, refuse("the system does not say its PowerState: whether a power cycle is over could not be seen")
	case state == schemas.PoweringOnPowerState || state == schemas.PoweringOffPowerState:
		return p, refuse("the system is %s: something else is changing its power", state)
	case len(takes) == 0:
		return p, refuse("the system does not say which resets it takes (ResetType@Redfish.AllowableValues, or ActionInfo)")
	case state == schemas.OffPowerState && p.on != "":
		p.first = p.on
	case slices.Contains(takes, schemas.PowerCycleResetType):
		p.first = schemas.PowerCycleResetType
	case slices.Contains(takes, schemas.ForceOffResetType) && p.on != "":
		p.first = schemas.ForceOffResetType
	default:
		return p, refuse("the system takes no reset that takes its power away: PowerCycle is needed, or ForceOff and On; it takes %s", names(takes))
	}
	return p, nil
}

func names(types []schemas.ResetType) string {
	var words []string
	for _, t := range types[:min(len(types), 16)] {
		words = append(words, clip(string(t), 32))
	}
	return strings.Join(words, ", ")
}

// said is what Begin says when the BMC took the reset.
func (p plan) said() string {
	switch p.first {
	case schemas.PowerCycleResetType:
		return "the BMC took PowerCycle"
	case schemas.ForceOffResetType:
		return fmt.Sprintf("the BMC has no PowerCycle and took ForceOff; %s follows when it is off", p.on)
	default:
		return fmt.Sprintf("the system was off, and the BMC took %s", p.first)
	}
}

// sight is what Look knows.
type sight struct {
	power schemas.PowerState
	// inTwo says that the power comes back only when we ask for it.
	inTwo bool
	// doubt says why it is not known whether the power was cycled; empty where the BMC took the one reset that does it.
	doubt string
	// newBoot says that the Node is in another boot than the one the attempt was decided on.
	newBoot bool
	// since is how long ago it began, and overdue that nobody waits for it any longer.
	since   time.Duration
	overdue bool
}

// aside is what precedes a report while it is in doubt.
func (s sight) aside() string {
	if s.doubt == "" || s.newBoot {
		return ""
	}
	return fmt.Sprintf("%s yet (%s): ", notKnown, s.doubt)
}

// because says why an attempt is given up.
func (s sight) because() string {
	return cmp.Or(s.doubt, "the power did not come back in time")
}

func (s sight) says() string { return cmp.Or(clip(string(s.power), 32), "nothing of its power") }

func (s sight) boot() string {
	if s.newBoot {
		return "has started anew"
	}
	return "is not known to have started anew"
}

// step is what Look does next.
type step int

const (
	wait step = iota
	turnOn
	done
	lost
)

// next decides what follows from what is seen. Off comes first: whatever else is known, a machine is not left off.
func (s sight) next(t timing) step {
	switch {
	case s.power == schemas.OffPowerState && (s.inTwo || s.since >= t.off):
		return turnOn
	case s.power != schemas.OnPowerState && s.overdue:
		return lost
	case s.power != schemas.OnPowerState, s.since < t.settle:
		return wait
	case s.newBoot, s.doubt == "":
		return done
	case s.overdue:
		return lost
	}
	return wait
}
