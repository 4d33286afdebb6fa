#!/bin/sh
# The gate between Roundhouse and Slurm on the same nodes: what Roundhouse drains is drained in Slurm too, and Roundhouse moves
# slurmd only when Slurm says that no job of its runs there. One pass; run it every few seconds where kubectl and scontrol work
# (docs/slurm.md). Nodes have the same names in both. It drains and resumes for its own reason only.
set -eu

taint=roundhouse.dev/quarantined
condition=SlurmDrained
reason=roundhouse

# say NODE STATUS REASON MESSAGE writes the condition, beside those of others.
say() {
	now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
	kubectl patch node "$1" --subresource=status --type=strategic -p "{\"status\":{\"conditions\":[{\"type\":\"$condition\",
		\"status\":\"$2\",\"reason\":\"$3\",\"message\":\"$4\",\"lastHeartbeatTime\":\"$now\",\"lastTransitionTime\":\"$now\"}]}}" >/dev/null
}

# One line a node: its name, whether it has the taint, and what the condition says now.
kubectl get nodes -o go-template='{{range .items}}{{.metadata.name}} {{$t := "-"}}{{range .spec.taints}}{{if eq .key "'$taint'"}}{{$t = "tainted"}}{{end}}{{end}}{{$t}} {{$c := "None"}}{{range .status.conditions}}{{if eq .type "'$condition'"}}{{$c = .status}}{{end}}{{end}}{{$c}}{{"\n"}}{{end}}' |
	while read -r node tainted said; do
		shown=$(scontrol show node "$node" --oneliner 2>/dev/null) || continue # it is not one of Slurm's.
		state=$(printf '%s\n' "$shown" | sed -n 's/.* State=\([^ ]*\).*/\1/p')
		ours=$(printf '%s\n' "$shown" | sed -n "s/.* Reason=\($reason\) .*/\1/p")
		case "$tainted $state" in
		"tainted "*DRAIN*) ;;
		tainted*) scontrol update "NodeName=$node" State=DRAIN "Reason=$reason" ;;
		*) if [ -n "$ours" ]; then scontrol update "NodeName=$node" State=RESUME; fi ;;
		esac
		case "$tainted $state" in
		"tainted "*DRAIN*)
			case "$state" in
			*ALLOCATED* | *MIXED* | *COMPLETING*) [ "$said" = False ] || say "$node" False JobsRunning "Slurm is draining the node" ;;
			*) [ "$said" = True ] || say "$node" True Drained "no job of Slurm's runs on the node" ;;
			esac
			;;
		*) [ "$said" != True ] || say "$node" False InService "the node is in service" ;;
		esac
	done
