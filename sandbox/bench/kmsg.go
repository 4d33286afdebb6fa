package bench

import (
	"context"
	"fmt"
	"os"
	"time"
)

const (
	// kmsgLines is how many lines are written to the kernel log.
	kmsgLines = 40
	// kmsgGap is the time between two: what comes sooner is published together with what came before, by design.
	kmsgGap = 1200 * time.Millisecond
)

// kmsgCodes are Xids whose faults are critical and each a fault of its own.
var kmsgCodes = []int{46, 48, 62, 64, 79}

// kmsgDelays times lines of the real kernel log to the fault in the API, through the agent as a process of its own. It
// believes what a process writes, as only a test does: the kernel's own lines cannot be had when they are wanted.
func (c *cluster) kmsgDelays(ctx context.Context, r *Report) error {
	log, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		r.Missing = append(r.Missing, "lines of the real kernel log: "+err.Error())
		return nil
	}
	defer log.Close()
	const devices = 8
	agent, err := c.startAgent(ctx, devices, "-accept-injected-kernel-lines")
	if err != nil {
		return err
	}
	defer agent.stop()
	c.o.Progress(fmt.Sprintf("%d lines into /dev/kmsg", kmsgLines))
	var all []time.Duration
	for i := range kmsgLines {
		code, device := kmsgCodes[i/devices], i%devices
		began := time.Now()
		if _, err := fmt.Fprintf(log, "<4>NVRM: Xid (PCI:0000:%02x:00): %d, pid='<unknown>', name=<unknown>, written by roundhouse-sandbox bench\n", firstBus+device, code); err != nil {
			return fmt.Errorf("writing to the kernel log: %w", err)
		}
		seen, err := c.line.wait(ctx, lineKey(agent.node, fmt.Sprintf("Xid%d", code), fmt.Sprintf("0000:%02x:00.0", firstBus+device)))
		if err != nil {
			return err
		}
		all = append(all, seen.Sub(began))
		if err := pause(ctx, kmsgGap); err != nil {
			return err
		}
	}
	r.Kmsg = spread(all)
	return nil
}

// lineKey names a fault on a device of a node, by its address.
func lineKey(node, code, address string) string { return node + "/" + code + "/" + address }
