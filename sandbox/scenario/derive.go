package scenario

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

const (
	stateOn  = "on"
	stateOff = "off"
)

// node says what changed on a Node: our taint and claim, conditions, and what our writers own on it.
func (w *World) node(before, after *corev1.Node, gone bool) []Fact {
	if before == nil {
		before = &corev1.Node{}
	}
	if gone {
		after = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: after.Name}}
	}
	facts := append(taintFacts(before, after), claimFacts(before, after)...)
	for _, c := range after.Status.Conditions {
		if old := conditionOf(before, c.Type); old == nil || old.Status != c.Status || old.Reason != c.Reason {
			facts = append(facts, fact(KindCondition, "node", after.Name, "type", string(c.Type), "status", string(c.Status), "reason", c.Reason))
		}
	}
	facts = append(facts, offeredFacts(before, after)...)
	return append(facts, w.touch("node/"+after.Name, after.Name, after.ManagedFields)...)
}

// offeredFacts say of which extended resources a Node offers more or fewer than it did.
func offeredFacts(before, after *corev1.Node) []Fact {
	var facts []Fact
	for _, name := range slices.Sorted(maps.Keys(after.Status.Allocatable)) {
		is := after.Status.Allocatable[name]
		if was, known := before.Status.Allocatable[name]; !known || was.Equal(is) || !strings.Contains(string(name), "/") {
			continue
		}
		of := after.Status.Capacity[name]
		facts = append(facts, fact(KindOffered, "node", after.Name, "resource", string(name), "count", is.String(), "of", of.String()))
	}
	return facts
}

func conditionOf(n *corev1.Node, t corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range n.Status.Conditions {
		if n.Status.Conditions[i].Type == t {
			return &n.Status.Conditions[i]
		}
	}
	return nil
}

func taintFacts(before, after *corev1.Node) []Fact {
	was, is := ourTaints(before), ourTaints(after)
	var facts []Fact
	for _, name := range slices.Sorted(maps.Keys(is)) {
		if !was[name] {
			facts = append(facts, fact(KindQuarantine, "name", name, "node", after.Name, "how", string(v1alpha1.QuarantineNodeTaint), "state", stateOn))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if !is[name] {
			facts = append(facts, fact(KindQuarantine, "name", name, "node", after.Name, "how", string(v1alpha1.QuarantineNodeTaint), "state", stateOff))
		}
	}
	return facts
}

func ourTaints(n *corev1.Node) map[string]bool {
	found := map[string]bool{}
	for _, t := range n.Spec.Taints {
		if t.Key == v1alpha1.TaintQuarantined {
			found[t.Value] = true
		}
	}
	return found
}

func claimFacts(before, after *corev1.Node) []Fact {
	was, is := before.Annotations[v1alpha1.AnnotationClaim], after.Annotations[v1alpha1.AnnotationClaim]
	if was == is {
		return nil
	}
	var facts []Fact
	if was != "" {
		facts = append(facts, fact(KindClaim, "node", after.Name, "state", stateOff, "by", was))
	}
	if is != "" {
		facts = append(facts, fact(KindClaim, "node", after.Name, "state", stateOn, "by", is))
	}
	return facts
}

// managers of fields that are Roundhouse's: the controller's begin so, and the agent's is this.
const (
	managerController = "roundhouse-"
	managerSandbox    = "roundhouse-sandbox"
)

// touch says which fields of an object that is not ours came to be owned by one of our writers, those of our own Node
// conditions apart. Ownership is the server's own record of who wrote what (managedFields), so a write that was undone
// between two looks is in it as well.
func (w *World) touch(object, node string, managed []metav1.ManagedFieldsEntry) []Fact {
	var facts []Fact
	for _, entry := range managed {
		if !strings.HasPrefix(entry.Manager, managerController) || strings.HasPrefix(entry.Manager, managerSandbox) || entry.FieldsV1 == nil {
			continue
		}
		var tree map[string]any
		if err := json.Unmarshal(entry.FieldsV1.GetRawBytes(), &tree); err != nil {
			continue // the server wrote it; it is JSON.
		}
		for _, field := range leaves("", tree) {
			key := object + " " + field
			if ownCondition(field) || w.touched[key] {
				continue
			}
			w.touched[key] = true
			facts = append(facts, fact(KindTouched, "node", node, "object", object, "by", entry.Manager, "field", field))
		}
	}
	return facts
}

// ownCondition says whether a field is one of our own condition types, or the list that holds them.
func ownCondition(field string) bool {
	return strings.Contains(field, `k:{"type":"Roundhouse`) || strings.HasSuffix(field, ".f:conditions..")
}

// leaves lists the ends of a tree of managed fields.
func leaves(path string, tree map[string]any) []string {
	if len(tree) == 0 {
		return []string{path}
	}
	var out []string
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		child, _ := tree[key].(map[string]any)
		out = append(out, leaves(path+"."+key, child)...)
	}
	return out
}

// remediation says where an incident stands, when that changed.
func (w *World) remediation(before, after *v1alpha1.Remediation, gone bool) []Fact {
	if gone {
		return nil
	}
	st := after.Status
	if before != nil && before.Status.Phase == st.Phase && before.Status.Reason == st.Reason && before.Status.Message == st.Message &&
		len(before.Spec.Devices) == len(after.Spec.Devices) {
		return nil
	}
	rung, saved, opened := "", "", ""
	if before == nil {
		opened = "yes"
	}
	if st.Step != nil {
		rung = st.Step.Rung
	}
	if st.Evidence != nil {
		saved = st.Evidence.SHA256
	}
	return []Fact{fact(KindRemediation, "name", after.Name, "node", after.Spec.Node, "phase", string(st.Phase), "reason", st.Reason,
		"message", st.Message, "code", after.Spec.Root.Code, "rung", rung, "attempts", strconv.Itoa(len(st.Attempts)), "rule", st.Rule,
		"evidence", saved, "devices", strconv.Itoa(len(after.Spec.Devices)),
		"opened", opened)}
}

func isOurs(r *resourcev1.DeviceTaintRule) bool {
	return r.Spec.Taint.Key == v1alpha1.DeviceTaintQuarantined
}

// nodeOfRule is the node of the incident that a rule belongs to, else the pool it selects.
func (w *World) nodeOfRule(r *resourcev1.DeviceTaintRule) string {
	if rem := w.incidents[r.Labels[v1alpha1.LabelRemediation]]; rem != nil {
		return rem.Spec.Node
	}
	if s := r.Spec.DeviceSelector; s != nil && s.Pool != nil {
		return *s.Pool
	}
	return ""
}

func (w *World) rule(before, after *resourcev1.DeviceTaintRule, gone bool) []Fact {
	if !isOurs(after) || (before != nil && !gone) {
		return nil
	}
	state, device := stateOn, ""
	if gone {
		state = stateOff
	}
	if s := after.Spec.DeviceSelector; s != nil && s.Device != nil {
		device = *s.Device
	}
	return []Fact{fact(KindQuarantine, "name", after.Name, "node", w.nodeOfRule(after), "how", string(v1alpha1.QuarantineDeviceTaintRule),
		"device", device, "state", state)}
}

// policy says how far a policy may go, when that changed.
func (w *World) policy(before, after *v1alpha1.RemediationPolicy, gone bool) []Fact {
	if gone {
		return nil
	}
	accepted, message := "", ""
	if c := meta.FindStatusCondition(after.Status.Conditions, v1alpha1.ConditionAccepted); c != nil {
		accepted, message = string(c.Status), c.Message
	}
	if before != nil && before.Spec.Mode == after.Spec.Mode {
		if c := meta.FindStatusCondition(before.Status.Conditions, v1alpha1.ConditionAccepted); (c == nil && accepted == "") || (c != nil && string(c.Status) == accepted) {
			return nil
		}
	}
	return []Fact{fact(KindPolicy, "name", after.Name, "mode", string(after.Spec.Mode), "accepted", accepted, "message", message)}
}

func (w *World) hold(before, after *v1alpha1.RemediationHold, gone bool) []Fact {
	state := stateOn
	switch {
	case gone:
		state = stateOff
	case before != nil:
		return nil
	}
	return []Fact{fact(KindHold, "name", after.Name, "state", state, "reason", after.Spec.Reason, "by", after.Spec.RequestedBy)}
}

// budget says which slots were taken and given back, and how many are held then of how many there are.
func budget(before, after *v1alpha1.NodeDisruptionBudget, gone bool) []Fact {
	var was, is []v1alpha1.Reservation
	if before != nil {
		was = before.Status.Reservations
	}
	if !gone {
		is = after.Status.Reservations
	}
	of := "no limit"
	if m := after.Spec.MaxUnavailable; m != nil {
		of = m.String()
	}
	holds := func(list []v1alpha1.Reservation, r v1alpha1.Reservation) bool {
		return slices.ContainsFunc(list, func(o v1alpha1.Reservation) bool { return o.RemediationUID == r.RemediationUID })
	}
	slot := func(r v1alpha1.Reservation, state string) Fact {
		held := 0
		for _, o := range is {
			if o.Domain == r.Domain {
				held++
			}
		}
		return fact(KindBudget, "name", after.Name, "node", r.Node, "state", state, "held", strconv.Itoa(held), "of", of, "domain", r.Domain)
	}
	var facts []Fact
	for _, r := range is {
		if !holds(was, r) {
			facts = append(facts, slot(r, "taken"))
		}
	}
	for _, r := range was {
		if !holds(is, r) {
			facts = append(facts, slot(r, "freed"))
		}
	}
	return facts
}

// leaseController is the leader Lease of the controller.
const leaseController = "roundhouse-controller"

func (w *World) lease(l *coordinationv1.Lease) []Fact {
	if l.Name != leaseController || l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity == w.leader || *l.Spec.HolderIdentity == "" {
		return nil
	}
	w.leader = *l.Spec.HolderIdentity
	return []Fact{fact(KindLeader, "holder", w.leader)}
}

// event says what an Event says; repeats of one are not told again.
func event(e *eventsv1.Event, t watch.EventType) []Fact {
	if t != watch.Added || !strings.Contains(e.ReportingController, "roundhouse") {
		return nil
	}
	node := ""
	if e.Regarding.Kind == "Node" {
		node = e.Regarding.Name
	}
	return []Fact{fact(KindEvent, "node", node, "type", e.Type, "reason", e.Reason, "message", e.Note)}
}

// nodeHealth says what a node's agent published, and what was asked of it.
func (w *World) nodeHealth(before, after *v1alpha1.NodeHealth, gone bool) []Fact {
	if gone {
		return nil
	}
	if before == nil {
		before = &v1alpha1.NodeHealth{}
	}
	was, is := before.Status, after.Status
	var facts []Fact
	if !equality.Semantic.DeepEqual(was, is) {
		facts = append(facts, fact(KindPublished, "node", after.Name))
	}
	if was.BootID != "" && is.BootID != was.BootID {
		cause := ""
		if n := len(is.Boots); n > 0 {
			cause = string(is.Boots[n-1].Cause)
		}
		facts = append(facts, fact(KindReboot, "node", after.Name, "boot", is.BootID, "cause", cause))
	}
	facts = append(facts, faultFacts(after.Name, was, is)...)
	facts = append(facts, actionFacts(before, after)...)
	if was.Summary != is.Summary {
		facts = append(facts, fact(KindHealth, "node", after.Name, "summary", string(is.Summary)))
	}
	return facts
}

func faultFacts(node string, was, is v1alpha1.NodeHealthStatus) []Fact {
	var facts []Fact
	for _, f := range is.Faults {
		if !slices.ContainsFunc(was.Faults, same(f)) {
			facts = append(facts, faultFact(node, f, is.Devices, "reported"))
		}
	}
	for _, f := range was.Faults {
		if !slices.ContainsFunc(is.Faults, same(f)) {
			facts = append(facts, faultFact(node, f, is.Devices, "cleared"))
		}
	}
	return facts
}

func same(f v1alpha1.Fault) func(v1alpha1.Fault) bool {
	return func(o v1alpha1.Fault) bool { return o.Code == f.Code && o.Device == f.Device && o.Check == f.Check }
}

func faultFact(node string, f v1alpha1.Fault, devices []v1alpha1.Device, state string) Fact {
	slot := ""
	for _, d := range devices {
		if d.ID == f.Device {
			slot = d.Slot
		}
	}
	return fact(KindFault, "node", node, "code", f.Code, "device", f.Device, "slot", slot, "class", string(f.Class), "check", f.Check,
		"evidence", f.Evidence, "state", state)
}

func actionFacts(before, after *v1alpha1.NodeHealth) []Fact {
	var facts []Fact
	was, is := before.Spec.Action, after.Spec.Action
	switch {
	case is != nil && (was == nil || was.ID != is.ID):
		facts = append(facts, fact(KindAction, "node", after.Name, "type", string(is.Type), "id", is.ID, "state", "Asked"))
	case is == nil && was != nil && (after.Status.Action == nil || after.Status.Action.ID != was.ID || after.Status.Action.State != v1alpha1.ActionDone):
		facts = append(facts, fact(KindAction, "node", after.Name, "type", string(was.Type), "id", was.ID, "state", "Withdrawn"))
	}
	said, says := before.Status.Action, after.Status.Action
	if says != nil && (said == nil || said.ID != says.ID || said.State != says.State) {
		kind := ""
		if is != nil && is.ID == says.ID {
			kind = string(is.Type)
		}
		facts = append(facts, fact(KindAction, "node", after.Name, "type", kind, "id", says.ID, "state", string(says.State),
			"result", string(says.Result), "reason", says.Reason, "message", says.Message))
	}
	return facts
}

// pod says what became of a pod. Pods are told apart by UID, so one that is moved away and comes back under the same name
// has been moved all the same.
func (w *World) pod(before, after *corev1.Pod, gone bool) []Fact {
	if before == nil {
		before = &corev1.Pod{}
	}
	fields := []string{"node", after.Spec.NodeName, "pod", after.Namespace + "/" + after.Name, "uid", string(after.UID), "app", app(after),
		"namespace", after.Namespace, "owner", owner(after)}
	var facts []Fact
	if before.Spec.NodeName == "" && after.Spec.NodeName != "" && !gone {
		facts = append(facts, fact(KindPlaced, fields...))
	}
	if was, is := before.Status.Phase, after.Status.Phase; was != is && !gone {
		switch {
		case is == corev1.PodRunning:
			facts = append(facts, fact(KindRunning, fields...))
		case is == corev1.PodSucceeded && after.DeletionTimestamp == nil:
			facts = append(facts, fact(KindFinished, fields...))
		}
	}
	if by := disturbed(before, after, gone); by != "" && !w.going[after.UID] && before.Spec.NodeName != "" {
		w.going[after.UID] = true
		facts = append(facts, fact(KindEviction, append(fields, "by", by, "left", strconv.Itoa(w.others(after)))...))
	}
	if gone {
		delete(w.going, after.UID)
	}
	return facts
}

// others counts the pods of the same app, this one apart, that run and are Ready and are not going.
func (w *World) others(p *corev1.Pod) int {
	n := 0
	for uid, o := range w.pods {
		if uid == p.UID || o.Namespace != p.Namespace || app(o) != app(p) || o.DeletionTimestamp != nil {
			continue
		}
		if slices.ContainsFunc(o.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}) {
			n++
		}
	}
	return n
}

// disturbed says by whom a pod that had not ended was told to go, or made to fail; nothing where it was not.
func disturbed(before, after *corev1.Pod, gone bool) string {
	ended := before.Status.Phase == corev1.PodSucceeded || before.Status.Phase == corev1.PodFailed
	failed := after.Status.Phase == corev1.PodFailed
	going := after.DeletionTimestamp != nil && before.DeletionTimestamp == nil
	if ended || (!failed && !going && !gone) || (gone && before.DeletionTimestamp != nil) {
		return ""
	}
	for _, c := range after.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue {
			return c.Reason
		}
	}
	if failed && !going {
		return fmt.Sprintf("Failed%s", after.Status.Reason)
	}
	return "Deleted"
}

func owner(p *corev1.Pod) string {
	if o := metav1.GetControllerOf(p); o != nil {
		return o.Kind + "/" + o.Name
	}
	return ""
}
