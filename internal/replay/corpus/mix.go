package corpus

import "time"

// Mix is what a fleet's logs are made of. Each figure names its source; where nothing is published the value is an
// assumption, and says so. "Secondary" is what was read in notes on a paper, not in the paper.
type Mix struct {
	// Xid45PerNodeDay are the clean-up lines of applications: an issue of NVSentinel tells of 168,924 on 288 nodes. They came
	// in two days there; here the same number comes in each day by default, which is twice as dense.
	Xid45PerNodeDay float64
	// OtherApplicationPerNodeDay are further Xids of applications. The same issue has 10 of all others in 576 node-days;
	// this is an assumption, far above that, so that each code is met.
	OtherApplicationPerNodeDay float64
	// CrashNodes is how many nodes the crash of one job hits at once: another issue tells of 77.
	CrashNodes int
	// FaultsPer1000NodeDays is the rate of faults at which kinds are drawn by their share in what stopped Llama 3's training
	// (148 GPU, 72 HBM3, 35 network or cable, 19 SRAM, 17 GSP). Published: 2.34 and 6.50 (Meta's two clusters), 3.8 (Llama 3).
	FaultsPer1000NodeDays float64
	// FaultsPerKind is how many of each kind there are beside those, at least one: at the published rate a day of 288 nodes
	// would have one fault, and no recall could be told. Assumed.
	FaultsPerKind int
	// LemonPercent of the nodes have LemonSharePercent of the faults (Meta, secondary: 1.2% of nodes in 13% of daily jobs).
	LemonPercent, LemonSharePercent float64
	// OffBusWithAERPercent of the GPUs that fall off the bus have errors of the bus logged before (Meta, secondary: 43 to 63).
	OffBusWithAERPercent float64
	// RestartPercent of the faults begin while the agent restarts, and AgentRestartsPerNodeDay are restarts at other times.
	// Assumed.
	RestartPercent          float64
	AgentRestartsPerNodeDay float64
	// RebootsPerNodeDay, UpgradesPerNodeDay, OverrunsPerNodeDay are planned reboots, upgrades of the driver, and overruns of
	// the log in which nothing was lost that matters. Assumed.
	RebootsPerNodeDay, UpgradesPerNodeDay, OverrunsPerNodeDay float64
	// ForgedPerNodeDay are lines in which a process's name holds what it should not, InjectedPerNodeDay lines that a process
	// wrote to /dev/kmsg, OddPerNodeDay lines with codes that are ignored or unknown, and HostPerNodeDay what the host says of
	// itself that asks for nothing. Assumed.
	ForgedPerNodeDay, InjectedPerNodeDay, OddPerNodeDay, HostPerNodeDay float64
	// ChatterPerNodeDay are kernel lines that tell nothing. Assumed.
	ChatterPerNodeDay float64
	// GPUs and Switches of each node. Assumed: an HGX H100 has 8 and 4.
	GPUs, Switches int
}

// DefaultMix is the published mix.
func DefaultMix() Mix {
	return Mix{
		Xid45PerNodeDay: 168924.0 / 288, OtherApplicationPerNodeDay: 10, CrashNodes: 77,
		FaultsPer1000NodeDays: 4.0, FaultsPerKind: 5, LemonPercent: 1.2, LemonSharePercent: 13, OffBusWithAERPercent: 53,
		RestartPercent: 10, AgentRestartsPerNodeDay: 0.1, RebootsPerNodeDay: 0.05, UpgradesPerNodeDay: 0.05, OverrunsPerNodeDay: 0.05,
		ForgedPerNodeDay: 4, InjectedPerNodeDay: 1, OddPerNodeDay: 2, HostPerNodeDay: 1, ChatterPerNodeDay: 200, GPUs: 8, Switches: 4,
	}
}

const (
	// window is the share of a node's time that one fault, or one planned reboot, has for itself.
	window = 3 * time.Hour
	// uptime is how long before the corpus each node started.
	uptime = 10 * time.Minute
	// agentDown is the longest that an agent takes to start again.
	agentDown = time.Minute
)

// causes are the shares of what stopped Llama 3's training (54 days, 16,384 H100), by what our kinds name as theirs. The
// others of its list leave no line of a GPU in the log.
var causes = []struct {
	name   string
	weight int
}{{"gpu", 148}, {"hbm3", 72}, {"network", 35}, {"sram", 19}, {"gsp", 17}}
