package infiniband

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
)

var t0 = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// rig is a machine of four adapters with one InfiniBand port each, all up.
type rig struct {
	*testing.T
	ns    atomic.Int64
	m     *fake.Machine
	o     Options
	ports map[string]machine.InfiniBandPort
	check *Check
}

func newRig(t *testing.T) *rig {
	r := &rig{T: t, ports: map[string]machine.InfiniBandPort{}}
	r.ns.Store(t0.UnixNano())
	var devices []fake.Device
	for i := range 4 {
		devices = append(devices, fake.Device{PCIDevice: machine.PCIDevice{
			PCIID:   machine.PCIID{Vendor: 0x15b3, Device: 0x1021, Class: 0x020700, Driver: "mlx5_core"},
			Address: address(i), Config: machine.ConfigAnswers,
		}})
	}
	r.m = fake.New(fake.Options{Now: r.now, Devices: devices, BootID: "0fc70fad-6980-4f05-acf8-5f6c56122bb4"})
	for i := range 4 {
		r.set(portAt(i))
	}
	r.o = Options{Machine: r.m, Now: r.now}
	r.restart()
	return r
}

func address(i int) string { return fmt.Sprintf("0000:%x0:00.0", i+1) }

func portAt(i int) machine.InfiniBandPort {
	return machine.InfiniBandPort{
		Device: fmt.Sprintf("mlx5_%d", i), Number: 1, PCI: address(i), GUID: fmt.Sprintf("a088:c203:0012:000%d", i), Model: "MT4129 MT_0000000838",
		State: machine.PortActive, Phys: machine.PhysLinkUp, Mbps: 400000, Lanes: 4, Layer: machine.LayerInfiniBand,
		Counters: map[string]uint64{"link_downed": 0, "symbol_error": 0, "port_xmit_discards": 0, "link_error_recovery": 0},
	}
}

func (r *rig) now() time.Time          { return time.Unix(0, r.ns.Load()).UTC() }
func (r *rig) advance(d time.Duration) { r.ns.Add(int64(d)) }
func (r *rig) restart()                { r.check = New(r.o) }

func (r *rig) set(p machine.InfiniBandPort) {
	r.ports[p.Device] = p
	r.m.SetPort(p)
}

// change changes one port.
func (r *rig) change(device string, f func(*machine.InfiniBandPort)) {
	p := r.ports[device]
	p.Counters = maps.Clone(p.Counters)
	f(&p)
	r.set(p)
}

// down has a port go down, as when its cable is pulled, and goUp come back; counted says that the adapter counts it.
func (r *rig) down(device string, counted bool) {
	r.change(device, func(p *machine.InfiniBandPort) {
		p.State, p.Phys, p.Mbps, p.Lanes = machine.PortDown, machine.PhysPolling, 10000, 4
		if counted {
			p.Counters["link_downed"]++
		}
	})
}

func (r *rig) goUp(device string) {
	r.change(device, func(p *machine.InfiniBandPort) {
		p.State, p.Phys, p.Mbps, p.Lanes = machine.PortActive, machine.PhysLinkUp, 400000, 4
	})
}

func (r *rig) look() health.Result {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	return r.check.Look(ctx)
}

// expect looks, and compares the outcome and the findings.
func (r *rig) expect(when string, outcome health.Outcome, want ...string) health.Result {
	r.Helper()
	res := r.look()
	if diff := cmp.Diff(want, show(res.Findings)); diff != "" {
		r.Errorf("%s (-want +got):\n%s", when, diff)
	}
	if res.Outcome != outcome || outcome == health.Unknown && res.Reason == "" {
		r.Errorf("%s: %s %s (%s), want %s", when, res.Outcome, res.Reason, res.Message, outcome)
	}
	return res
}

func show(findings []health.Finding) []string {
	var out []string
	for _, f := range findings {
		out = append(out, fmt.Sprintf("%s %s %s %s x%d", f.Fault.Code, f.PCI, f.Fault.Severity, f.Fault.Recommended, f.Fault.Count))
	}
	return out
}

// settle looks, and again when what looks wrong has lasted.
func (r *rig) settle() {
	r.look()
	r.advance(30 * time.Second)
}

func TestWhatAPortShows(t *testing.T) {
	tests := map[string]struct {
		arrange func(r *rig)
		then    func(r *rig)
		outcome health.Outcome
		want    []string
	}{
		"all well": {outcome: health.Passing},
		"a cable is out": {
			then:    func(r *rig) { r.down("mlx5_1", true) },
			outcome: health.Failing, want: []string{"InfiniBandPortDown 0000:20:00.0 Critical Human x1"},
		},
		"the link is up and no subnet manager has configured it": {
			then: func(r *rig) {
				r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.State = machine.PortInit })
			},
			outcome: health.Failing, want: []string{"InfiniBandPortNotConfigured 0000:20:00.0 Critical Human x1"},
		},
		"switched off on this machine is nobody's fault": {
			then: func(r *rig) {
				r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.State, p.Phys = machine.PortDown, machine.PhysDisabled })
			},
			outcome: health.Passing, want: []string{"InfiniBandPortDisabled 0000:20:00.0 Info None x1"},
		},
		"deferring for a moment is up": {
			then: func(r *rig) {
				r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.State = machine.PortActiveDefer })
			},
			outcome: health.Passing,
		},
		"at half the rate it had": {
			then:    func(r *rig) { r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.Mbps, p.Lanes = 200000, 2 }) },
			outcome: health.Failing, want: []string{"InfiniBandPortSlow 0000:20:00.0 Warning Human x1"},
		},
		"degraded from the start: fewer lanes than all its peers": {
			arrange: func(r *rig) { r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.Mbps, p.Lanes = 200000, 2 }) },
			outcome: health.Failing, want: []string{"InfiniBandPortSlow 0000:20:00.0 Warning Human x1"},
		},
		"as many lanes at a lower speed, from the start: perhaps it is wired to another switch": {
			arrange: func(r *rig) { r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.Mbps = 200000 }) },
			outcome: health.Passing, want: []string{"InfiniBandPortSlow 0000:20:00.0 Info None x1"},
		},
		"one peer alone says nothing": {
			arrange: func(r *rig) {
				r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.Mbps, p.Lanes = 200000, 2 })
				r.change("mlx5_2", func(p *machine.InfiniBandPort) { p.Model = "another" })
				r.change("mlx5_3", func(p *machine.InfiniBandPort) { p.PCI = "0000:40:00.1" })
			},
			outcome: health.Passing,
		},
		"a peer just as slow, and it is how they are wired": {
			arrange: func(r *rig) {
				r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.Mbps, p.Lanes = 200000, 2 })
				r.change("mlx5_2", func(p *machine.InfiniBandPort) { p.Mbps, p.Lanes = 200000, 2 })
			},
			outcome: health.Passing,
		},
		"a declared rate that it does not reach": {
			arrange: func(r *rig) { r.o.Rates = []Rate{{"mlx5_1", 800000}, {"mlx5_*", 400000}} },
			outcome: health.Failing, want: []string{"InfiniBandPortSlow 0000:20:00.0 Warning Human x1"},
		},
		"a declared rate that is less than it once had": {
			arrange: func(r *rig) { r.o.Rates = []Rate{{"mlx5_1/1", 200000}} },
			then:    func(r *rig) { r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.Mbps, p.Lanes = 200000, 2 }) },
			outcome: health.Passing,
		},
		"never up while all its peers are": {
			arrange: func(r *rig) { r.down("mlx5_1", false) },
			outcome: health.Failing, want: []string{"InfiniBandPortNeverUp 0000:20:00.0 Warning Human x1"},
		},
		"two that were never up are not cabled": {
			arrange: func(r *rig) { r.down("mlx5_1", false); r.down("mlx5_2", false) },
			outcome: health.Passing,
		},
		"never up, and its one peer is: too few to tell": {
			arrange: func(r *rig) {
				r.down("mlx5_1", false)
				r.change("mlx5_2", func(p *machine.InfiniBandPort) { p.Model = "another" })
				r.change("mlx5_3", func(p *machine.InfiniBandPort) { p.Model = "another" })
			},
			outcome: health.Passing,
		},
		"lanes of an Ethernet port are how its speed is made": {
			arrange: func(r *rig) {
				for i := range 4 {
					r.change(fmt.Sprintf("mlx5_%d", i), func(p *machine.InfiniBandPort) { p.Layer = machine.LayerEthernet })
				}
				r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.Mbps, p.Lanes = 200000, 2 })
			},
			outcome: health.Passing, want: []string{"InfiniBandPortSlow 0000:20:00.0 Info None x1"},
		},
		"a port that was made an Ethernet one begins anew": {
			then: func(r *rig) {
				r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.Layer, p.Mbps = machine.LayerEthernet, 200000 })
			},
			outcome: health.Passing,
		},
		"two ports of one adapter count errors, and the worse of them says how bad": {
			arrange: func(r *rig) {
				p := portAt(1)
				p.Device, p.Number = "mlx5_1b", 2
				r.set(p)
			},
			then: func(r *rig) {
				r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.Counters["port_xmit_discards"] = 10000 })
				r.change("mlx5_1b", func(p *machine.InfiniBandPort) { p.Counters["symbol_error"] = 200 })
			},
			outcome: health.Failing, want: []string{"InfiniBandPortErrors 0000:20:00.0 Warning None x10200"},
		},
		"never up, but declared": {
			arrange: func(r *rig) {
				r.down("mlx5_1", false)
				r.down("mlx5_2", false)
				r.o.Rates = []Rate{{"mlx5_2", 400000}}
			},
			outcome: health.Failing, want: []string{"InfiniBandPortDown 0000:30:00.0 Critical Human x1"},
		},
		"never up, and switched off": {
			arrange: func(r *rig) {
				r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.State, p.Phys = machine.PortDown, machine.PhysDisabled })
			},
			outcome: health.Passing,
		},
		"RDMA over Ethernet, down: it looks switched off when its cable is out": {
			arrange: func(r *rig) {
				r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.Layer = machine.LayerEthernet; p.Counters = nil })
			},
			then: func(r *rig) {
				r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.State, p.Phys = machine.PortDown, machine.PhysDisabled })
			},
			outcome: health.Failing, want: []string{"InfiniBandPortDown 0000:20:00.0 Critical Human x1"},
		},
		"RDMA over Ethernet, without an address": {
			arrange: func(r *rig) { r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.Layer = machine.LayerEthernet }) },
			then: func(r *rig) {
				r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.State, p.Phys = machine.PortInit, 4 })
			},
			outcome: health.Passing, want: []string{"InfiniBandPortNotConfigured 0000:20:00.0 Info None x1"},
		},
		"excluded": {
			arrange: func(r *rig) { r.o.Exclude = []Pattern{"mlx5_1", "mlx5_2/1", "0000:40:*"} },
			then:    func(r *rig) { r.down("mlx5_1", true); r.down("mlx5_2", true); r.down("mlx5_3", true) },
			outcome: health.Passing,
		},
		"a virtual function and a device in software are not watched": {
			arrange: func(r *rig) {
				r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.Virtual = true })
				r.change("mlx5_2", func(p *machine.InfiniBandPort) { p.PCI = "" })
			},
			then:    func(r *rig) { r.down("mlx5_1", true); r.down("mlx5_2", true) },
			outcome: health.Passing,
		},
		"two ports of one adapter make one fault": {
			arrange: func(r *rig) {
				p := portAt(1)
				p.Device, p.Number = "mlx5_9", 2
				r.set(p)
			},
			then:    func(r *rig) { r.down("mlx5_1", true); r.down("mlx5_9", true) },
			outcome: health.Failing, want: []string{"InfiniBandPortDown 0000:20:00.0 Critical Human x2"},
		},
		"more symbol errors than a good link has": {
			then: func(r *rig) {
				r.change("mlx5_1", func(p *machine.InfiniBandPort) {
					p.Counters["symbol_error"], p.Counters["link_error_recovery"] = 120, 9
				})
			},
			outcome: health.Failing, want: []string{"InfiniBandPortErrors 0000:20:00.0 Warning None x120"},
		},
		"what was counted before the first look is where it starts": {
			arrange: func(r *rig) {
				r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.Counters["symbol_error"], p.Counters["link_downed"] = 9000, 90 })
			},
			outcome: health.Passing,
		},
		"a counter that fell was set to zero": {
			arrange: func(r *rig) {
				r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.Counters["symbol_error"] = 9000 })
			},
			then: func(r *rig) {
				r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.Counters["symbol_error"] = 119 })
			},
			outcome: health.Passing,
		},
		"discards are what a congested fabric does": {
			then: func(r *rig) {
				r.change("mlx5_1", func(p *machine.InfiniBandPort) { p.Counters["port_xmit_discards"] = 10000 })
			},
			outcome: health.Passing, want: []string{"InfiniBandPortErrors 0000:20:00.0 Info None x10000"},
		},
		"the adapter is off the bus": {
			then:    func(r *rig) { r.m.RemovePorts("mlx5_1"); r.m.RemoveDevice(address(1)) },
			outcome: health.Failing, want: []string{"InfiniBandAdapterMissing 0000:20:00.0 Critical Reboot x1"},
		},
		"a pod has taken the RDMA device into its own namespace": {
			then: func(r *rig) { r.m.RemovePorts("mlx5_1") }, outcome: health.Passing,
		},
		"no driver holds the adapter": {
			then: func(r *rig) { r.m.RemovePorts("mlx5_1"); r.m.SetDriver(address(1), "") }, outcome: health.Unknown,
		},
		"another adapter in the place is a replacement, with no past": {
			then: func(r *rig) {
				r.m.RemovePorts("mlx5_1")
				p := portAt(1)
				p.GUID, p.Mbps = "a088:c203:0099:0001", 300000
				r.set(p)
			},
			outcome: health.Passing, want: []string{"InfiniBandPortSlow 0000:20:00.0 Info None x1"},
		},
		"names and addresses shift, and it is the same adapter": {
			then: func(r *rig) {
				for i := range 4 {
					r.m.RemovePorts(fmt.Sprintf("mlx5_%d", i))
				}
				for i := range 4 {
					p := portAt(i)
					p.Device, p.PCI = fmt.Sprintf("ibp%d", i), fmt.Sprintf("0000:%x0:00.0", i+9)
					if i == 1 {
						p.Mbps, p.Lanes = 200000, 2
					}
					r.set(p)
				}
			},
			outcome: health.Failing, want: []string{"InfiniBandPortSlow 0000:a0:00.0 Warning Human x1"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if tc.arrange != nil {
				tc.arrange(r)
				r.restart()
			}
			r.look()
			if tc.then != nil {
				tc.then(r)
			}
			r.settle()
			res := r.expect("then", tc.outcome, tc.want...)
			for _, f := range res.Findings {
				class := v1alpha1.ClassFabric
				if f.Fault.Code == CodeMissing {
					class = v1alpha1.ClassHardware
				}
				if f.Fault.Check != Name || f.Fault.Class != class || f.Fault.Evidence == "" || f.Fault.FirstSeen.IsZero() || f.Fault.LastSeen.IsZero() {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

func TestADownPortOverTime(t *testing.T) {
	r := newRig(t)
	r.look()
	r.down("mlx5_0", true)
	res := r.look()
	if res.Outcome != health.Unknown || res.Reason != ReasonSettling || res.Again != 30*time.Second {
		t.Errorf("seen once: %s %s, again in %v", res.Outcome, res.Reason, res.Again)
	}
	r.advance(29 * time.Second)
	r.look()
	if err := r.check.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.advance(time.Hour)
	r.restart()
	r.expect("a new agent measures anew what had not lasted", health.Unknown)
	r.advance(30 * time.Second)
	down := "InfiniBandPortDown 0000:10:00.0 Critical Human x1"
	res = r.expect("it lasts", health.Failing, down)
	if want := "mlx5_0/1: state DOWN, physical state Polling"; res.Findings[0].Fault.Evidence != want {
		t.Errorf("evidence %q", res.Findings[0].Fault.Evidence)
	}
	r.advance(time.Minute)
	r.restart()
	r.expect("and what had lasted stands with a new agent", health.Failing, down)
	r.m.GoDown(0)
	r.expect("a new boot: is it coming back?", health.Unknown)
	r.advance(30 * time.Second)
	r.expect("it was up once, in another boot", health.Failing, down)
	r.goUp("mlx5_0")
	r.expect("back", health.Passing)
}

func TestFlaps(t *testing.T) {
	for name, counted := range map[string]bool{"counted by the adapter": true, "seen by the looks alone": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.look()
			for i := range 3 {
				if i > 0 {
					r.advance(10 * time.Minute)
				}
				r.down("mlx5_0", counted)
				r.look()
				r.goUp("mlx5_0")
				if i < 2 {
					r.expect("up again", health.Passing)
				}
			}
			r.expect("three times in an hour", health.Failing, "InfiniBandPortFlapping 0000:10:00.0 Warning Human x3")
			r.advance(45 * time.Minute)
			r.expect("twice in the last hour: too few to begin, and not over", health.Failing, "InfiniBandPortFlapping 0000:10:00.0 Warning Human x3")
			r.advance(15 * time.Minute)
			r.expect("an hour without", health.Passing)
		})
	}
	r := newRig(t)
	r.look()
	r.change("mlx5_0", func(p *machine.InfiniBandPort) { p.Counters["link_downed"] += 3 })
	r.restart()
	r.expect("down and up three times while the agent was away", health.Failing, "InfiniBandPortFlapping 0000:10:00.0 Warning Human x3")
}

func TestErrorsHaveHysteresis(t *testing.T) {
	r := newRig(t)
	r.look()
	add := func(n uint64) {
		r.change("mlx5_0", func(p *machine.InfiniBandPort) { p.Counters["symbol_error"] += n })
	}
	add(70)
	r.expect("70", health.Passing)
	r.advance(20 * time.Minute)
	add(60)
	res := r.expect("130 in an hour", health.Failing, "InfiniBandPortErrors 0000:10:00.0 Warning None x130")
	if want := "mlx5_0/1: in the last hour symbol_error 130"; res.Findings[0].Fault.Evidence != want {
		t.Errorf("evidence %q", res.Findings[0].Fault.Evidence)
	}
	r.advance(40 * time.Minute)
	r.expect("60 in the last hour", health.Failing, "InfiniBandPortErrors 0000:10:00.0 Warning None x130")
	r.advance(20 * time.Minute)
	r.expect("none", health.Passing)
}

func TestACounterAtItsEndIsSaid(t *testing.T) {
	r := newRig(t)
	r.change("mlx5_0", func(p *machine.InfiniBandPort) { p.Counters["link_downed"] = 255 })
	if res := r.expect("at its end", health.Passing); !strings.Contains(res.Message, "mlx5_0/1: link_downed at the end") {
		t.Errorf("%q", res.Message)
	}
	for range 3 {
		r.change("mlx5_0", func(p *machine.InfiniBandPort) { p.State = machine.PortDown })
		r.look()
		r.goUp("mlx5_0")
		r.look()
	}
	r.expect("the looks still see it go down", health.Failing, "InfiniBandPortFlapping 0000:10:00.0 Warning Human x3")
}

func TestForget(t *testing.T) {
	r := newRig(t)
	r.look()
	r.change("mlx5_0", func(p *machine.InfiniBandPort) { p.Mbps = 200000 })
	r.m.RemovePorts("mlx5_1")
	r.m.RemoveDevice(address(1))
	r.settle()
	r.expect("before", health.Failing, "InfiniBandPortSlow 0000:10:00.0 Warning Human x1", "InfiniBandAdapterMissing 0000:20:00.0 Critical Reboot x1")
	for _, name := range []string{"mlx5_0/1", "mlx5_1/1"} {
		if ok, err := r.check.Forget(t.Context(), name); !ok || err != nil {
			t.Fatal(name, ok, err)
		}
	}
	if ok, err := r.check.Forget(t.Context(), "mlx5_7/1"); ok || err != nil {
		t.Fatal(ok, err)
	}
	r.restart()
	r.settle()
	r.expect("cabled anew, and taken out, on purpose", health.Passing, "InfiniBandPortSlow 0000:10:00.0 Info None x1")
}

func TestCannotLook(t *testing.T) {
	tests := map[string]struct {
		arrange         func(*rig)
		reason, message string
	}{
		"the ports cannot be listed":   {func(r *rig) { r.m.Fail(fake.DoorInfiniBand, errors.New("permission denied")) }, health.ReasonCannotRead, "permission denied"},
		"an adapter's firmware hangs":  {func(r *rig) { r.m.Hang(fake.DoorInfiniBand, true) }, health.ReasonTimedOut, "in time"},
		"the boot ID cannot be read":   {func(r *rig) { r.m.Fail(fake.DoorBoot, errors.New("no such file")) }, health.ReasonCannotRead, "no such file"},
		"one is away and the bus hang": {func(r *rig) { r.m.RemovePorts("mlx5_2"); r.m.Hang(fake.DoorPCI, true) }, health.ReasonTimedOut, "in time"},
		"one is away and the bus is empty: not this host's /sys": {
			func(r *rig) {
				r.m.RemovePorts("mlx5_2")
				for i := range 4 {
					r.m.RemoveDevice(address(i))
				}
			}, health.ReasonCannotRead, "lists nothing",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.look()
			r.down("mlx5_0", true)
			r.settle()
			r.look()
			tc.arrange(r)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			res := r.check.Look(ctx)
			if res.Outcome != health.Unknown || res.Reason != tc.reason || !strings.Contains(res.Message, tc.message) {
				t.Errorf("%s %s %q", res.Outcome, res.Reason, res.Message)
			}
			if diff := cmp.Diff([]string{"InfiniBandPortDown 0000:10:00.0 Critical Human x1"}, show(res.Findings)); diff != "" {
				t.Errorf("what stood is gone (-want +got):\n%s", diff)
			}
		})
	}
	r := newRig(t)
	r.look()
	r.change("mlx5_0", func(p *machine.InfiniBandPort) { p.State, p.Unread = machine.PortUnknown, "state" })
	if res := r.expect("a port whose state cannot be read", health.Unknown); res.Reason != health.ReasonCannotRead {
		t.Errorf("%s", res.Reason)
	}
	for range 3 {
		r.look()
		r.goUp("mlx5_0")
		r.change("mlx5_0", func(p *machine.InfiniBandPort) { p.Unread = "" })
		r.expect("what could not be read has not gone down", health.Passing)
		r.change("mlx5_0", func(p *machine.InfiniBandPort) { p.State, p.Unread = machine.PortUnknown, "state" })
	}
	r.goUp("mlx5_0")
	r.change("mlx5_0", func(p *machine.InfiniBandPort) { p.Unread = "rate" })
	if res := r.expect("a port whose rate cannot be read", health.Unknown); !strings.Contains(res.Message, "cannot read rate") {
		t.Errorf("%s", res.Message)
	}
}

func TestAMachineWithoutPorts(t *testing.T) {
	r := newRig(t)
	r.m = fake.New(fake.Options{Now: r.now})
	r.o.Machine = r.m
	r.restart()
	r.expect("nothing to look at", health.Passing)
}

func TestADiskThatFails(t *testing.T) {
	r := newRig(t)
	r.look()
	r.down("mlx5_0", false)
	r.m.Fail(fake.DoorStore, errors.New("input/output error"))
	r.restart()
	r.expect("the inventory may still come", health.Unknown)
	r.expect("and may", health.Unknown)
	r.settle()
	r.expect("it does not, and what can be seen is looked at", health.Failing, "InfiniBandPortNeverUp 0000:10:00.0 Warning Human x1")
	r.m.Fail(fake.DoorStore, nil)
	r.settle()
	r.expect("it comes at last, and nothing was written over it", health.Failing, "InfiniBandPortDown 0000:10:00.0 Critical Human x1")
	if err := r.m.Save(t.Context(), stateFile, []byte("{")); err != nil {
		t.Fatal(err)
	}
	r.goUp("mlx5_0")
	r.restart()
	r.expect("a broken file starts anew", health.Passing)
	if err := r.check.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// unreadable is a machine whose state can be written and not read.
type unreadable struct{ *fake.Machine }

func (unreadable) Load(context.Context, string) ([]byte, error) {
	return nil, errors.New("input/output error")
}

func TestAnInventoryThatCannotBeReadIsNotWrittenOver(t *testing.T) {
	r := newRig(t)
	r.look()
	r.down("mlx5_0", false)
	r.o.Machine = unreadable{r.m}
	r.restart()
	for range loadAttempts + 1 {
		r.look()
	}
	r.o.Machine = r.m
	r.restart()
	r.settle()
	r.expect("the port is still missed", health.Failing, "InfiniBandPortDown 0000:10:00.0 Critical Human x1")
}

func TestParsePattern(t *testing.T) {
	tests := map[string]struct {
		in   string
		port string // a device
		want bool
		bad  bool
	}{
		"a device":              {in: "mlx5_1", port: "mlx5_1", want: true},
		"another device":        {in: "mlx5_1", port: "mlx5_11"},
		"a port":                {in: " mlx5_1/1", port: "mlx5_1", want: true},
		"another port":          {in: "mlx5_1/2", port: "mlx5_1"},
		"all devices":           {in: "mlx5_*", port: "mlx5_11", want: true},
		"all ports of a device": {in: "mlx5_1/*", port: "mlx5_1", want: true},
		"an adapter":            {in: "0000:20:00.0", port: "mlx5_1", want: true},
		"nothing":               {in: " ", bad: true},
		"a broken pattern":      {in: "mlx5_[", bad: true},
		"too many parts":        {in: "mlx5_1/1/1", bad: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := ParsePattern(tc.in)
			port := portAt(1)
			port.Device = tc.port
			if (err != nil) != tc.bad || !tc.bad && p.matches(&port) != tc.want {
				t.Errorf("%q, %v", p, err)
			}
		})
	}
}

func TestParseRate(t *testing.T) {
	for in, want := range map[string]Rate{
		"mlx5_*=400": {"mlx5_*", 400000}, "mlx5_1/1= 25 ": {"mlx5_1/1", 25000},
	} {
		if got, err := ParseRate(in); err != nil || got != want {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "mlx5_1", "mlx5_1=", "mlx5_1=0", "mlx5_1=-1", "mlx5_1=fast", "=400", "a/b/c=400", "mlx5_1=2.5", "mlx5_1=99999"} {
		if r, err := ParseRate(in); err == nil {
			t.Errorf("%q is taken as %+v", in, r)
		}
	}
}

func FuzzParsePattern(f *testing.F) {
	for _, s := range []string{"mlx5_1", "mlx5_*/1", "0000:20:00.0", "[a-z]?"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePattern(s)
		if err != nil {
			return
		}
		port := portAt(1)
		p.matches(&port)
		if again, err := ParsePattern(string(p)); err != nil || again != p {
			t.Errorf("%q is %q, which is %q, %v", s, p, again, err)
		}
	})
}

func FuzzParseRate(f *testing.F) {
	f.Add("mlx5_*=400")
	f.Add("=")
	f.Fuzz(func(t *testing.T, s string) {
		if r, err := ParseRate(s); err == nil && (r.Mbps == 0 || r.Mbps > 65535000 || r.Pattern == "") {
			t.Errorf("%q is %+v", s, r)
		}
	})
}
