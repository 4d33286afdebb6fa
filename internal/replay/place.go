package replay

import "time"

// place says when each line was written and in which boot, from what the lines of one file say of it.
type place struct {
	// zone-less lines have no year; year is of the last one, 0 before the first.
	year int
	// until is the latest that the first line of a file without years may be.
	until time.Time

	// bootTime is when the present boot began, known says that a boot began at all.
	bootTime time.Time
	known    bool
	bootID   string
	lastMono time.Duration
	lastSeq  uint64
	lastWall time.Time
	// pending is a boot that was told and has no time yet.
	pending *parsed
}

// monoSlack is how far the times of one boot may go back: the lines of several processors are not quite in order.
const monoSlack = 5 * time.Second

// downtime is taken for the time between two boots of a recording without times of day.
const downtime = time.Minute

// boot notes that a boot begins. Where the file gives no time for it, the first line after it does.
func (c *place) boot(p *parsed) (e Event, ok bool) {
	if p.wall.IsZero() {
		c.pending = &parsed{boot: p.boot}
		return Event{}, false
	}
	return c.begin(p.boot, p.wall), true
}

func (c *place) begin(id string, at time.Time) Event {
	c.bootTime, c.known, c.bootID, c.lastMono, c.lastSeq, c.pending = at, true, id, 0, 0, nil
	return Event{Kind: Boot, At: at, BootID: id}
}

// line gives a line its time. began is the boot that it begins, where it does.
func (c *place) line(p *parsed, banner bool) (at time.Time, began *Event) {
	if p.hasMono {
		return c.mono(p)
	}
	at = p.wall
	if p.noYear {
		at = c.dated(at)
	}
	other := p.boot != "" && p.boot != c.bootID
	again := p.seq != 0 && p.seq <= c.lastSeq
	if !c.known || c.pending != nil || other || again || banner && !c.lastWall.IsZero() {
		id := p.boot
		if c.pending != nil {
			id = c.pending.boot
		}
		e := c.begin(id, at)
		began = &e
	}
	c.lastWall, c.lastSeq = at, max(c.lastSeq, p.seq)
	return at, began
}

// mono gives a time to a line that tells its time since the boot. Numbers that begin anew, or a time that goes back, are
// another boot.
func (c *place) mono(p *parsed) (time.Time, *Event) {
	again := p.seq != 0 && p.seq <= c.lastSeq || p.mono < c.lastMono-monoSlack
	var began *Event
	switch {
	case !c.known:
		e := c.begin("", c.bootTime)
		began = &e
	case c.pending != nil, again:
		id := ""
		if c.pending != nil {
			id = c.pending.boot
		}
		e := c.begin(id, c.bootTime.Add(c.lastMono+downtime))
		began = &e
	}
	c.lastMono, c.lastSeq = max(c.lastMono, p.mono), max(c.lastSeq, p.seq)
	return c.bootTime.Add(p.mono), began
}

// dated gives a time of day and month its year: for the first line the latest that is not in the future, from then on the
// next year where the months begin anew.
func (c *place) dated(t time.Time) time.Time {
	in := func(year int) time.Time { return t.AddDate(year-t.Year(), 0, 0).UTC() }
	if c.year == 0 {
		c.year = c.until.Year()
		if in(c.year).After(c.until) {
			c.year--
		}
	} else if c.lastWall.Sub(in(c.year)) > 180*24*time.Hour {
		c.year++
	}
	return in(c.year)
}
