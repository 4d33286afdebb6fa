package remedy

import "strings"

// MaxMessage is how long a message of RemedyStatus may be.
const MaxMessage = 512

// Cut keeps a message within what the status holds.
func Cut(text string) string {
	const dots = "..."
	if len(text) <= MaxMessage {
		return text
	}
	return strings.ToValidUTF8(text[:MaxMessage-len(dots)], "") + dots
}
