package controller

import (
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	installed "github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/driverpod"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/external"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/job"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/redfish"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/replace"
)

// remedies are the repairs that this controller makes itself. What each may ask for is the chart's to grant: without the
// rights a rung is refused, and says what is missing.
func remedies(mgr ctrl.Manager, c Config, jobs *job.Runner) map[v1alpha1.RungAction]remedy.Remedy {
	all, live := mgr.GetClient(), mgr.GetAPIReader()
	return map[v1alpha1.RungAction]remedy.Remedy{
		v1alpha1.RungRestartDriver: driverpod.New(all, live),
		v1alpha1.RungPowerCycle:    redfish.New(live, c.Namespace),
		v1alpha1.RungReplace:       replace.New(all),
		v1alpha1.RungExternal:      external.New(all, c.Clock),
		v1alpha1.RungRunJob:        job.Remedy{Runner: jobs},
	}
}

// jobRunner runs the Jobs of rungs, and those that prove a repair.
func jobRunner(mgr ctrl.Manager, c Config, pods corev1client.PodsGetter) *job.Runner {
	return &job.Runner{Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Logs: job.PodLogs{Pods: pods}, Namespace: c.Namespace,
		ServiceAccount: installed.JobServiceAccount}
}
