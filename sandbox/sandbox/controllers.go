package sandbox

import "context"

// Controller is one process of the controller.
type Controller struct{}

// Identity is its name in the leader Lease.
func (c *Controller) Identity() string { panic("being written") }

// PID is its process.
func (c *Controller) PID() int { panic("being written") }

// LogPath is its log.
func (c *Controller) LogPath() string { panic("being written") }

// Alive says whether the process is there, frozen or not.
func (c *Controller) Alive() bool { panic("being written") }

// Kill ends it at once, as a crash would (SIGKILL), and returns when it is gone.
func (c *Controller) Kill(ctx context.Context) error { panic("being written") }

// Freeze stops it where it is (SIGSTOP).
func (c *Controller) Freeze() error { panic("being written") }

// Thaw lets it go on (SIGCONT).
func (c *Controller) Thaw() error { panic("being written") }

// StartController starts one more controller, and returns once its process is ready; it need not lead.
func (s *Sandbox) StartController(ctx context.Context) (*Controller, error) { panic("being written") }

// Controllers lists those that are alive, in the order of their start.
func (s *Sandbox) Controllers() []*Controller { panic("being written") }

// Leader is the controller that holds the leader Lease; nil when none of ours does.
func (s *Sandbox) Leader(ctx context.Context) (*Controller, error) { panic("being written") }

// WaitLeader waits until one of the controllers that are alive leads.
func (s *Sandbox) WaitLeader(ctx context.Context) (*Controller, error) { panic("being written") }
