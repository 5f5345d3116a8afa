// gitops SCRIPT FILE...: what Flux, Helm and Argo CD conclude from objects of pgrail.
//
// FILE is what `kubectl get KIND --watch --output-watch-events -o json` prints. Each distinct state is evaluated by kstatus, the
// library of Flux and Helm, and by SCRIPT, the health script of Argo CD, with the Lua library of Argo CD.
// Prints one line for each state, and the rules that one of them breaks. The exit status is 1 if there is any, or if a kind was
// never seen as it must be.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// What must have been seen of each kind.
var required = map[string][]status.Status{
	"ProtectedDatabase": {status.CurrentStatus, status.InProgressStatus, status.FailedStatus},
	"TableGuard":        {status.CurrentStatus, status.InProgressStatus, status.FailedStatus},
	"GuardExemption":    {status.CurrentStatus, status.InProgressStatus, status.FailedStatus},
	"BackupSchedule":    {status.CurrentStatus, status.InProgressStatus, status.FailedStatus},
	"DatabaseBackup":    {status.CurrentStatus, status.InProgressStatus, status.FailedStatus},
	"DatabaseRestore":   {status.CurrentStatus, status.InProgressStatus, status.FailedStatus},
	"GuardrailPolicy":   {status.CurrentStatus, status.InProgressStatus},
}

// A state: all that a conclusion can depend on, without names and times.
type state struct {
	Kind       string
	Current    bool // the status is of this generation
	Deleted    bool
	Suspended  bool
	Phase      string
	Conditions map[string]string // type: status/reason
}

func (s state) String() string {
	parts := []string{s.Kind}
	if s.Phase != "" {
		parts = append(parts, s.Phase)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Conditions)) {
		parts = append(parts, name+"="+s.Conditions[name])
	}
	if !s.Current {
		parts = append(parts, "outdated")
	}
	if s.Deleted {
		parts = append(parts, "deleted")
	}
	if s.Suspended {
		parts = append(parts, "suspended")
	}
	return strings.Join(parts, " ")
}

func (s state) is(condition, value string) bool {
	return strings.HasPrefix(s.Conditions[condition], value+"/")
}

func stateOf(object *unstructured.Unstructured) state {
	s := state{Kind: object.GetKind(), Deleted: object.GetDeletionTimestamp() != nil, Conditions: map[string]string{}}
	observed, found, _ := unstructured.NestedInt64(object.Object, "status", "observedGeneration")
	s.Current = found && observed == object.GetGeneration()
	s.Phase, _, _ = unstructured.NestedString(object.Object, "status", "phase")
	s.Suspended, _, _ = unstructured.NestedBool(object.Object, "spec", "suspend")
	conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	for _, one := range conditions {
		if condition, ok := one.(map[string]any); ok {
			s.Conditions[fmt.Sprint(condition["type"])] = fmt.Sprintf("%v/%v", condition["status"], condition["reason"])
		}
	}
	return s
}

// What Argo CD shows: Healthy, Progressing, Degraded, Suspended; and the message.
func health(script string, object *unstructured.Unstructured) (string, string, error) {
	machine := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer machine.Close()
	// Those that Argo CD opens, without its own `os`.
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable, lua.StringLibName: lua.OpenString,
	} {
		if err := machine.CallByParam(lua.P{Fn: machine.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return "", "", err
		}
	}
	machine.SetGlobal("obj", toLua(machine, object.Object))
	if err := machine.DoString(script); err != nil {
		return "", "", err
	}
	answer, ok := machine.Get(-1).(*lua.LTable)
	if !ok {
		return "", "", errors.New("the script returned no table")
	}
	return answer.RawGetString("status").String(), answer.RawGetString("message").String(), nil
}

func toLua(machine *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case bool:
		return lua.LBool(value)
	case float64:
		return lua.LNumber(value)
	case int64:
		return lua.LNumber(value)
	case string:
		return lua.LString(value)
	case []any:
		table := machine.NewTable()
		for _, item := range value {
			table.Append(toLua(machine, item))
		}
		return table
	case map[string]any:
		table := machine.NewTable()
		for key, item := range value {
			table.RawSetString(key, toLua(machine, item))
		}
		return table
	}
	return lua.LNil
}

// The rules. Each is of what a user of Flux, Helm or Argo CD waits for.
func broken(s state, concluded status.Status, shown string) []string {
	var rules []string
	rule := func(holds bool, words string) {
		if !holds {
			rules = append(rules, words)
		}
	}
	if s.Deleted {
		rule(concluded == status.TerminatingStatus, "kstatus: a deleted object is terminating")
		rule(shown == "Progressing", "Argo CD: a deleted object is progressing")
		return rules
	}
	ends := s.Phase == "Failed" || s.Phase == "Rejected"
	switch {
	case !s.Current:
		rule(concluded == status.InProgressStatus, "kstatus: what the operator has not observed is in progress")
		rule(shown == "Progressing", "Argo CD: what the operator has not observed is progressing")
	case s.is("Stalled", "True") || ends:
		rule(concluded == status.FailedStatus, "kstatus: what cannot succeed has failed")
		rule(shown == "Degraded", "Argo CD: what cannot succeed is degraded")
	case s.is("Ready", "True"):
		rule(concluded == status.CurrentStatus, "kstatus: what is ready is current")
		rule(shown != "Progressing" || s.is("Enforced", "False"), "Argo CD: what is ready is not progressing")
	default:
		rule(concluded == status.InProgressStatus || s.Suspended, "kstatus: what is not ready is in progress")
		rule(shown == "Progressing" || shown == "Degraded" || s.Suspended, "Argo CD: what is not ready is not healthy")
	}
	rule(shown != "Healthy" || !s.is("Enforced", "False") || strings.HasSuffix(s.Conditions["Enforced"], "/TablesMissing") ||
		strings.HasSuffix(s.Conditions["Enforced"], "/Warn"), "Argo CD: what is not enforced is not healthy")
	rule(shown != "Healthy" || !s.is("BackupFresh", "False"), "Argo CD: late backups are not healthy")
	return rules
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: gitops SCRIPT FILE...")
		os.Exit(1)
	}
	script, err := os.ReadFile(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	seen := map[string]map[status.Status]bool{}
	lines := map[string]string{}
	failures := 0
	fail := func(words string) {
		fmt.Println("FAILED", words)
		failures++
	}
	evaluate := func(object *unstructured.Unstructured) {
		s := stateOf(object)
		if _, known := lines[s.String()]; known {
			return
		}
		concluded, err := status.Compute(object)
		if err != nil {
			fail(fmt.Sprintf("kstatus: %s: %v", s, err))
			return
		}
		shown, message, err := health(string(script), object)
		if err != nil {
			fail(fmt.Sprintf("Argo CD: %s: %v", s, err))
			return
		}
		if !slices.Contains([]string{"Healthy", "Progressing", "Degraded", "Suspended"}, shown) {
			fail(fmt.Sprintf("Argo CD: %s: %q is no health", s, shown))
		}
		if message == "" || message == "nil" {
			fail(fmt.Sprintf("Argo CD: %s: no message", s))
		}
		for _, words := range broken(s, concluded.Status, shown) {
			fail(fmt.Sprintf("%s: %s; kstatus %s, Argo CD %s", words, s, concluded.Status, shown))
		}
		if seen[s.Kind] == nil {
			seen[s.Kind] = map[status.Status]bool{}
		}
		seen[s.Kind][concluded.Status] = true
		lines[s.String()] = fmt.Sprintf("%-10s %-11s %s", concluded.Status, shown, s)
	}
	for _, name := range os.Args[2:] {
		file, err := os.Open(name)
		if err != nil {
			fail(err.Error())
			continue
		}
		decoder := json.NewDecoder(file)
		for {
			var event struct{ Object map[string]any }
			// The last event is cut off when the watch is ended.
			if err := decoder.Decode(&event); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			} else if err != nil {
				fail(fmt.Sprintf("%s cannot be read: %v", name, err))
				break
			}
			raw, _ := json.Marshal(event.Object)
			object := &unstructured.Unstructured{}
			if err := object.UnmarshalJSON(raw); err == nil && object.GetAPIVersion() == "pgrail.dev/v1alpha1" {
				evaluate(object)
			}
		}
		_ = file.Close()
	}
	for _, key := range slices.Sorted(maps.Keys(lines)) {
		fmt.Println(lines[key])
	}
	for kind, statuses := range required {
		for _, one := range statuses {
			if !seen[kind][one] {
				fail(fmt.Sprintf("%s was never seen as %s", kind, one))
			}
		}
	}
	fmt.Printf("%d passed, %d failed\n", len(lines), failures)
	if failures > 0 {
		os.Exit(1)
	}
}
