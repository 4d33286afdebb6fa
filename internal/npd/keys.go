package npd

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
)

// keys is a tree of the keys that are known: of an object, or of each object of a list.
type keys map[string]keys

var (
	conditionKeys = keys{"type": nil, "reason": nil, "message": nil, "status": nil, "transition": nil, "roundhouse": nil}
	logKeys       = keys{
		"plugin": nil, "skiplist": nil, "logpath": nil, "lookback": nil, "delay": nil, "buffersize": nil, "source": nil,
		"metricsreporting": nil, "conditions": conditionKeys,
		"pluginconfig": {"source": nil, "timestamp": nil, "message": nil, "timestampformat": nil},
		"rules": {
			"type": nil, "condition": nil, "reason": nil, "pattern": nil, "patterngeneratedmessagesuffix": nil, "roundhouse": nil,
		},
	}
	pluginKeys = keys{
		"plugin": nil, "source": nil, "metricsreporting": nil, "conditions": conditionKeys,
		"pluginconfig": {
			"invoke_interval": nil, "timeout": nil, "max_output_length": nil, "concurrency": nil,
			"enable_message_change_based_condition_update": nil, "skip_initial_status": nil,
		},
		"rules": {
			"type": nil, "condition": nil, "reason": nil, "path": nil, "args": nil, "timeout": nil, "invoke_interval": nil,
			"roundhouse": nil,
		},
	}
)

// unknownKeys warns of keys that NPD does not know and ignores, where a typing error would otherwise hide.
func (r *reader) unknownKeys(known keys) { r.unknown("", r.data, known) }

func (r *reader) unknown(path string, data []byte, known keys) {
	var object map[string]json.RawMessage
	if json.Unmarshal(data, &object) != nil {
		var list []json.RawMessage
		if json.Unmarshal(data, &list) == nil {
			for i, item := range list {
				r.unknown(fmt.Sprintf("%s[%d]", path, i), item, known)
			}
		}
		return
	}
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		field := clip(name)
		if path != "" {
			field = path + "." + field
		}
		sub, ok := known[strings.ToLower(name)]
		if !ok {
			r.warn(field, "is not a key of NPD and is ignored; remove it, or correct it")
		} else if sub != nil {
			r.unknown(field, object[name], sub)
		}
	}
}
