package fake

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Programs runs programs that are Go functions, by path. A path that is not there is fs.ErrNotExist.
type Programs struct {
	mu   sync.Mutex
	by   map[string]func(context.Context, machine.Program) (machine.Ran, error)
	runs []machine.Program
}

var _ machine.ProgramRunner = (*Programs)(nil)

// Set makes the program at the path do what f does.
func (p *Programs) Set(path string, f func(context.Context, machine.Program) (machine.Ran, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by == nil {
		p.by = make(map[string]func(context.Context, machine.Program) (machine.Ran, error))
	}
	p.by[path] = f
}

// Answers makes the program at the path end with the exit code after it wrote stdout.
func (p *Programs) Answers(path string, exit int, stdout string) {
	p.Set(path, func(_ context.Context, prog machine.Program) (machine.Ran, error) {
		return machine.Ran{Exit: exit, State: fmt.Sprintf("exit status %d", exit), Stdout: []byte(stdout)[:min(len(stdout), prog.MaxOutput)]}, nil
	})
}

// Runs are the programs that were run, in order.
func (p *Programs) Runs() []machine.Program {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.runs)
}

// RunProgram calls the function.
func (p *Programs) RunProgram(ctx context.Context, prog machine.Program) (machine.Ran, error) {
	p.mu.Lock()
	f := p.by[prog.Path]
	p.runs = append(p.runs, prog)
	p.mu.Unlock()
	if f == nil {
		return machine.Ran{}, fmt.Errorf("starting %s: %w", prog.Path, fs.ErrNotExist)
	}
	return f(ctx, prog)
}

// FindProgram says whether there is a function.
func (p *Programs) FindProgram(_ context.Context, prog machine.Program) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by[prog.Path] == nil {
		return fmt.Errorf("looking for %s: %w", prog.Path, fs.ErrNotExist)
	}
	return nil
}
