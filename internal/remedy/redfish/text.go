package redfish

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/stmcginnis/gofish/schemas"
)

const (
	// maxMessage bounds what goes into RemedyStatus.message, which takes 512 characters.
	maxMessage = 500
	// maxWords bounds what is repeated of a BMC's own words.
	maxWords = 200
	// maxInfos bounds how many of an answer's messages are repeated.
	maxInfos = 3
)

// explain turns what went wrong in a visit into what a person should mend. Only the end of our own context stays an error.
func (b *bmc) explain(ctx context.Context, err error) error {
	var already refusal
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var verify *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	switch {
	case errors.As(err, &already):
		return already
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("asking the BMC at %s: %w", b.host, ctx.Err())
	case errors.As(err, &unknown):
		return refuse("the certificate of the BMC at %s is of an unknown authority: key %s of %s must have the authority's certificate, or the BMC's own where it signed that itself",
			b.host, caKey, b.secret)
	case errors.As(err, &name):
		return refuse("the certificate of the BMC at %s is not for that name (%s): mend the certificate, or %s", b.host, reason(err), b.from)
	case errors.As(err, &verify):
		return refuse("the certificate of the BMC at %s is not good: %s", b.host, reason(err))
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &plain):
		return refuse("the BMC at %s does not speak TLS, which is needed: mend %s, or turn HTTPS on", b.host, b.from)
	case status(err) == http.StatusUnauthorized:
		return refusal{denied: true, text: clip(fmt.Sprintf("the BMC at %s does not take user %s (%s): mend username and password in %s",
			b.host, clip(b.username, 64), reason(err), b.secret), maxMessage)}
	case status(err) == http.StatusForbidden:
		return refuse("the BMC at %s does not let user %s do this (%s): the user of %s needs the privileges Login and ConfigureComponents",
			b.host, clip(b.username, 64), reason(err), b.secret)
	case status(err) != 0:
		return refuse("the BMC at %s answers %s", b.host, reason(err))
	}
	return refuse("asking the BMC at %s: %s; is %s right, and can the controller reach it?", b.host, reason(err), b.from)
}

// reason says what went wrong in one request, in the BMC's own words where it had some.
func reason(err error) string {
	var answer *schemas.Error
	var large *http.MaxBytesError
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	var wait net.Error
	var request *url.Error
	switch {
	case errors.As(err, &answer):
		return answered(answer)
	case errors.As(err, &large):
		return fmt.Sprintf("an answer of more than %d KiB", maxAnswer>>10)
	case errors.As(err, &syntax), errors.As(err, &mismatch), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return clip("an answer that is not Redfish: "+err.Error(), maxWords)
	case errors.Is(err, errElsewhere):
		return errElsewhere.Error()
	case errors.Is(err, errTwice):
		return errTwice.Error()
	case errors.As(err, &wait) && wait.Timeout():
		return "no answer in time"
	case errors.As(err, &request):
		return clip(request.Err.Error(), maxWords)
	}
	return clip(err.Error(), maxWords)
}

// answered repeats the messages of a Redfish error (DSP0266, "Error responses"), or the start of what is not one.
func answered(answer *schemas.Error) string {
	var infos []schemas.Message
	for _, info := range answer.ExtendedInfos {
		if info.Message != "" {
			infos = append(infos, schemas.Message(info))
		}
	}
	text := cmp.Or(messages(infos), clip(answer.Message, maxWords), clip(answer.Code, maxWords))
	code := answer.HTTPReturnedStatusCode
	switch {
	case code == 0:
		return text
	case text == "":
		return strings.TrimSpace(fmt.Sprintf("%d %s", code, http.StatusText(code)))
	}
	return fmt.Sprintf("%s: %s", strings.TrimSpace(fmt.Sprintf("%d %s", code, http.StatusText(code))), text)
}

// messages repeats the first few messages, with what to do about them.
func messages(infos []schemas.Message) string {
	var words []string
	for _, info := range infos[:min(len(infos), maxInfos)] {
		words = append(words, cmp.Or(info.Message, info.MessageID))
		if !strings.EqualFold(strings.Trim(info.Resolution, "."), "none") {
			words = append(words, info.Resolution)
		}
	}
	return clip(strings.Join(words, " "), maxWords)
}

// clip makes one line of a text, of at most so many characters.
func clip(text string, most int) string {
	text = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, "?"), func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	}), " ")
	runes := []rune(text)
	if len(runes) <= most {
		return text
	}
	return string(runes[:most-1]) + "…"
}
