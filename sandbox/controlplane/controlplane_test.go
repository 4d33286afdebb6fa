package controlplane

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// eventually fails the test unless done becomes true in time.
func eventually(t *testing.T, within time.Duration, what string, done func(ctx context.Context) (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if err := poll(ctx, func() (bool, error) { return done(ctx) }); err != nil {
		t.Fatalf("waiting until %s: %v", what, err)
	}
}

// running tells whether a process exists and is no zombie that waits for its parent.
func running(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	// proc_pid_stat(5): the state follows the command name, which ends with the last ")".
	_, state, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')'):]), " ")
	return !strings.HasPrefix(state, "Z")
}

func TestTheServerReportsTheReleaseThatGoModNames(t *testing.T) {
	version, err := shared.client.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	got := []string{version.GitVersion, version.Major, version.Minor, version.GitTreeState}
	if diff := cmp.Diff([]string{"v1.37.2", "1", "37", "clean"}, got); diff != "" {
		t.Errorf("version (-want +got):\n%s", diff)
	}
}

func TestTheKubeconfigWorksAndIsTheOwnersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := shared.WriteKubeconfig(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %o, want 600", info.Mode().Perm())
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Secrets("kube-system").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("the administrator may not list secrets: %v", err)
	}
}

func TestStopLeavesNoProcessAndNoDirectory(t *testing.T) {
	cp := ForTest(t, Options{})
	pids := cp.PIDs()
	if len(pids) != 2 || !running(pids[Etcd]) || !running(pids[APIServer]) {
		t.Fatalf("processes = %v, want a running etcd and kube-apiserver", pids)
	}
	began := time.Now()
	if err := cp.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("stopped in %s", time.Since(began))
	for component, pid := range pids {
		if running(pid) {
			t.Errorf("%s still runs as process %d", component, pid)
		}
	}
	if _, err := os.Stat(cp.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory %s: %v, want it gone", cp.Dir(), err)
	}
	if err := cp.Stop(t.Context()); err != nil {
		t.Errorf("stopping again: %v", err)
	}
}

func TestACallersDirectoryKeepsTheLogsAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	cp := ForTest(t, Options{Dir: dir})
	if err := cp.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if diff := cmp.Diff([]string{"etcd.log", "kube-apiserver.log"}, names); diff != "" {
		t.Errorf("left in the directory (-want +got):\n%s", diff)
	}
}

func TestWithoutTheNodeLifecycleControllerANewNodeHasNoTaintThatNobodyTakesOff(t *testing.T) {
	cp := ForTest(t, Options{WithoutNodeLifecycle: true})
	node, err := cp.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(node.Spec.Taints) != 0 {
		t.Errorf("taints = %v, want none", node.Spec.Taints)
	}
}

func TestAComponentThatDiesIsReportedWithItsLog(t *testing.T) {
	cp := ForTest(t, Options{})
	if err := syscall.Kill(cp.PIDs()[Etcd], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-cp.Exited():
		if !strings.Contains(err.Error(), "etcd failed: it exited: signal: killed") {
			t.Errorf("error = %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing was reported within 10s")
	}
}

func TestAFailedStartSaysWhyAndLeavesNothing(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	began := time.Now()
	_, err := Start(t.Context(), Options{ExtraArgs: map[Component]map[string]string{APIServer: {"no-such-flag": "1"}}})
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("noticed after %s, as if it had waited for the deadline", took)
	}
	if err == nil {
		t.Fatal("an API server with an unknown flag became ready")
	}
	if !strings.Contains(err.Error(), "unknown flag: --no-such-flag") {
		t.Errorf("the error does not hold the log's reason: %v", err)
	}
	left, err := os.ReadDir(tmp)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAnEndedContextEndsTheStart(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, Options{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error = %v, want the context's", err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// orphanEnv names the directory that the parent of the test below uses.
const orphanEnv = "ROUNDHOUSE_TEST_ORPHAN_DIR"

// orphanMain starts a control plane, writes down its processes and waits to be killed.
func orphanMain() {
	ctx, cancel := context.WithTimeout(context.Background(), testStart)
	defer cancel()
	dir := os.Getenv(orphanEnv)
	cp, err := Start(ctx, Options{Dir: filepath.Join(dir, "cp")})
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	pids := strconv.Itoa(cp.PIDs()[Etcd]) + " " + strconv.Itoa(cp.PIDs()[APIServer])
	if err := os.WriteFile(filepath.Join(dir, "pids"), []byte(pids), 0o600); err != nil {
		os.Exit(1)
	}
	<-ctx.Done()
}

func TestTheChildrenDieWithAParentThatCannotStopThem(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent, err := os.StartProcess(self, []string{self}, &os.ProcAttr{
		Env:   append(os.Environ(), orphanEnv+"="+dir),
		Files: []*os.File{nil, os.Stdout, os.Stderr},
	})
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	eventually(t, testStart, "the parent has started its children", func(context.Context) (bool, error) {
		data, err := os.ReadFile(filepath.Join(dir, "pids"))
		pids = strings.Fields(string(data))
		return err == nil && len(pids) == 2, nil
	})
	if err := parent.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := parent.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, text := range pids {
		pid, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, "process "+text+" is gone", func(context.Context) (bool, error) { return !running(pid), nil })
	}
}
