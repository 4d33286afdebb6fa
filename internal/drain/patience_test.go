package drain

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func TestWhatADrainIsPatientWith(t *testing.T) {
	began := now.Add(-10 * time.Minute)
	kept := func(ago time.Duration) change {
		return annotated(v1alpha1.AnnotationCheckpoint, now.Add(-ago).Format(time.RFC3339))
	}
	job := func(changes ...change) corev1.Pod {
		return pod("p", "Job", append([]change{func(p *corev1.Pod) {
			p.UID, p.Status.StartTime = "uid", &metav1.Time{Time: now.Add(-9 * time.Hour)}
		}}, changes...)...)
	}
	checkpoints := Patience{From: began, Checkpoint: 30 * time.Minute}
	idle := Patience{Until: now.Add(time.Hour), From: now.Add(time.Hour), Checkpoint: 30 * time.Minute}
	for name, tc := range map[string]struct {
		pod      corev1.Pod
		patience Patience
		// after is when the pod goes, from now; 0 at once.
		after time.Duration
	}{
		"without patience":                                {job(kept(time.Hour)), Patience{}, 0},
		"a pod that keeps its work":                       {job(kept(time.Hour)), checkpoints, 20 * time.Minute},
		"one that kept it when the drain began":           {job(kept(10 * time.Minute)), checkpoints, 20 * time.Minute},
		"one that has kept it since":                      {job(kept(9 * time.Minute)), checkpoints, 0},
		"one that never says so is not waited for":        {job(), checkpoints, 0},
		"one that says nonsense is not":                   {job(annotated(v1alpha1.AnnotationCheckpoint, "soon")), checkpoints, 0},
		"one that has kept it in the future is not":       {job(kept(-time.Hour)), checkpoints, 0},
		"its time is over":                                {job(kept(time.Hour)), Patience{From: now.Add(-30 * time.Minute), Checkpoint: 30 * time.Minute}, 0},
		"a pod that loses no work goes":                   {pod("p", "ReplicaSet", kept(time.Hour)), checkpoints, 0},
		"it may end by itself":                            {job(), idle, time.Hour},
		"it may end by itself, whatever it has kept":      {job(kept(time.Minute)), idle, time.Hour},
		"what loses nothing goes while others may end":    {pod("p", "ReplicaSet"), idle, 0},
		"what is on broken hardware goes all the same":    {job(kept(time.Hour)), Patience{From: began, Checkpoint: time.Hour, Until: now.Add(time.Hour), Except: map[types.UID]bool{"uid": true}}, 0},
		"after that it is waited for to keep it once":     {job(kept(time.Hour)), Patience{Until: began, From: began, Checkpoint: 30 * time.Minute}, 20 * time.Minute},
		"a gang's pod is one of those that lose work too": {pod("p", "ReplicaSet", labelled("jobset.sigs.k8s.io/jobset-name", "j")), idle, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			p := Make(Input{Now: now, Scope: ScopeNode, Pods: []corev1.Pod{tc.pod}})
			if len(p.Move) != 1 {
				t.Fatalf("%+v", p)
			}
			for _, at := range []struct {
				when  time.Time
				spare bool
			}{{now, tc.after > 0}, {now.Add(tc.after - time.Second), tc.after > 0}, {now.Add(tc.after), false}} {
				if at.when.Before(now) {
					continue
				}
				patience := tc.patience
				if patience.Until.After(now) && !at.when.Before(patience.Until) {
					patience.Checkpoint = 0 // that is the next wait.
				}
				move, spared := p.Spare(patience, at.when)
				if len(move)+len(spared) != 1 || (len(spared) == 1) != at.spare {
					t.Errorf("%s: %d moved, %d left", at.when, len(move), len(spared))
				}
				if at.spare && len(spared) == 1 && !spared[0].Until.Equal(now.Add(tc.after)) {
					t.Errorf("left until %s", spared[0].Until)
				}
			}
		})
	}
}
