package npd

import (
	"path/filepath"
	"strings"
)

// NameOf is the name of the check of a configuration file: npd- and the file's name without its extension, in lower case,
// with dashes for what is no letter or digit. Files of the same name in two directories need names of their own.
func NameOf(file string) string {
	base := filepath.Base(file)
	base = strings.ToLower(strings.TrimSuffix(base, filepath.Ext(base)))
	name := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			return c
		}
		return '-'
	}, base)
	name = strings.Trim(name, "-")
	const most = 60
	if len(name) > most {
		name = name[:most]
	}
	return "npd-" + name
}
