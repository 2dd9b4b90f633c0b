package transport

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/throughline/throughline/eventlog"
)

// AppendEventJSON appends an event as the JSON object of PROTOCOL P2.2, on one
// line.
func AppendEventJSON(dst []byte, channel string, e *eventlog.Event) []byte {
	dst = append(dst, `{"channel":`...)
	dst = appendString(dst, channel)
	dst = append(dst, `,"position":"`...)
	dst = e.At.Append(dst)
	dst = append(dst, `","type":`...)
	dst = appendString(dst, e.Type)
	dst = append(dst, ',')
	dst = appendPayload(dst, e.Kind, e.Data)
	if e.Key != "" {
		dst = append(dst, `,"key":`...)
		dst = appendString(dst, e.Key)
	}
	for i, tag := range e.Tags {
		begin := `,`
		if i == 0 {
			begin = `,"tags":[`
		}
		dst = append(dst, begin...)
		dst = appendString(dst, tag)
	}
	if len(e.Tags) > 0 {
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

// appendPayload appends the member data, and before it the encoding, if the
// data is binary.
func appendPayload(dst []byte, kind eventlog.Kind, data []byte) []byte {
	switch kind {
	case eventlog.Binary:
		dst = append(dst, `"encoding":"base64","data":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, data)
		return append(dst, '"')
	case eventlog.Text:
		dst = append(dst, `"data":`...)
		return appendString(dst, string(data))
	default:
		dst = append(dst, `"data":`...)
		return appendOneLine(dst, data)
	}
}

// appendOneLine appends valid JSON without line breaks: in JSON they can only
// be white space, as strings have them escaped.
func appendOneLine(dst, json []byte) []byte {
	start := len(dst)
	dst = append(dst, json...)
	for _, end := range []byte("\r\n") {
		rest := dst[start:]
		for i := bytes.IndexByte(rest, end); i >= 0; i = bytes.IndexByte(rest, end) {
			rest[i], rest = ' ', rest[i+1:]
		}
	}
	return dst
}

// AppendFrameJSON appends a frame as the JSON object that PROTOCOL has for it.
func AppendFrameJSON(dst []byte, f *Frame) []byte {
	switch f.Kind {
	case FrameOpen:
		return appendOpen(dst, f.Open)
	case FrameOpening:
		dst = append(dst, `{"channel":`...)
		dst = appendString(dst, f.Channel)
		dst = append(dst, `,"position":"`...)
		dst = f.At.Append(dst)
		if f.Given {
			return append(dst, `","given":true}`...)
		}
		return append(dst, `"}`...)
	case FrameGap:
		return appendGap(dst, f)
	case FrameEnd:
		dst = append(dst, `{"channel":`...)
		dst = appendString(dst, f.Channel)
		dst = append(dst, `,"end":`...)
		dst = AppendReasonJSON(dst, f.Reason)
		return append(dst, '}')
	case FrameClose:
		dst = append(dst, `{"close":`...)
		dst = AppendReasonJSON(dst, f.Reason)
		return append(dst, '}')
	case FramePublished:
		return appendPublished(dst, f.Published)
	case FrameAnswer:
		return appendAnswer(dst, f.Answer)
	case FramePresence:
		return appendPresence(dst, f)
	case FrameRefresh:
		dst = append(dst, `{"refresh":{"left":`...)
		dst = strconv.AppendInt(dst, f.Left.Milliseconds(), 10)
		return append(dst, `}}`...)
	default:
		return append(dst, `{}`...)
	}
}

func appendOpen(dst []byte, o *Open) []byte {
	dst = append(dst, `{"open":{"version":`...)
	dst = strconv.AppendInt(dst, Version, 10)
	dst = append(dst, `,"line":`...)
	dst = strconv.AppendUint(dst, o.Line, 10)
	dst = append(dst, `,"heartbeat":`...)
	dst = strconv.AppendInt(dst, o.Heartbeat.Milliseconds(), 10)
	if o.Remembered > 0 {
		dst = append(dst, `,"remembered":`...)
		dst = strconv.AppendInt(dst, o.Remembered.Milliseconds(), 10)
	}
	if o.Limit > 0 {
		dst = append(dst, `,"limit":`...)
		dst = strconv.AppendInt(dst, o.Limit, 10)
	}
	if o.Token != "" {
		dst = append(dst, `,"token":`...)
		dst = appendString(dst, o.Token)
	}
	return append(dst, `}}`...)
}

func appendGap(dst []byte, f *Frame) []byte {
	dst = append(dst, `{"channel":`...)
	dst = appendString(dst, f.Channel)
	dst = append(dst, `,"gap":`...)
	dst = appendLost(dst, &f.Lost)
	return append(dst, '}')
}

func appendLost(dst []byte, lost *eventlog.Lost) []byte {
	dst = append(dst, `{"from":"`...)
	dst = lost.From.Append(dst)
	dst = append(dst, `","to":"`...)
	dst = lost.To.Append(dst)
	dst = append(dst, `","reason":`...)
	dst = appendString(dst, string(lost.Reason))
	return append(dst, '}')
}

// AppendReasonJSON appends a reason as the JSON object of PROTOCOL P8.1.
func AppendReasonJSON(dst []byte, r Reason) []byte {
	dst = append(dst, `{"code":`...)
	dst = appendString(dst, r.Code)
	dst = append(dst, `,"class":"`...)
	dst = append(dst, r.Class.String()...)
	dst = append(dst, '"')
	if r.Class == Later {
		dst = append(dst, `,"after":`...)
		dst = strconv.AppendInt(dst, r.After.Milliseconds(), 10)
	}
	if r.Code == CodeBadVersion {
		dst = append(dst, `,"versions":[1]`...)
	}
	if r.Code == CodeBrokenCarrier {
		dst = appendNames(append(dst, `,"instead":`...), r.Instead)
	}
	if r.Message != "" {
		dst = append(dst, `,"message":`...)
		dst = appendString(dst, r.Message)
	}
	return append(dst, '}')
}

// appendNames appends names that are joined by commas as a JSON list.
func appendNames(dst []byte, joined string) []byte {
	dst = append(dst, '[')
	for name := range strings.SplitSeq(joined, ",") {
		if name == "" {
			continue
		}
		if dst[len(dst)-1] != '[' {
			dst = append(dst, ',')
		}
		dst = appendString(dst, name)
	}
	return append(dst, ']')
}

// AppendStringJSON appends s as a JSON string (RFC 8259 §7). What is not UTF-8
// is replaced by U+FFFD.
func AppendStringJSON(dst []byte, s string) []byte { return appendString(dst, s) }

func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		b := s[i]
		if b >= 0x20 && b != '"' && b != '\\' && b < utf8.RuneSelf {
			i++
			continue
		}
		if b >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(dst, s[from:i]...)
				dst = append(dst, `\ufffd`...)
				from = i + 1
			}
			i += size
			continue
		}
		dst = append(dst, s[from:i]...)
		switch b {
		case '"', '\\':
			dst = append(dst, '\\', b)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
		}
		i++
		from = i
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}

// appendPublished appends PROTOCOL P9.4.
func appendPublished(dst []byte, entries []Published) []byte {
	dst = append(dst, `{"published":[`...)
	for i, p := range entries {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"seq":`...)
		dst = strconv.AppendUint(dst, p.Seq, 10)
		switch {
		case p.Refused != nil:
			dst = append(dst, `,"error":`...)
			dst = AppendReasonJSON(dst, p.Refused.Reason)
		case p.Retry != nil:
			dst = append(dst, `,"retry":`...)
			dst = AppendReasonJSON(dst, p.Retry.Reason)
		default:
			dst = append(dst, `,"position":"`...)
			dst = p.At.Append(dst)
			dst = append(dst, '"')
		}
		if p.Duplicate {
			dst = append(dst, `,"duplicate":true`...)
		}
		if p.Tried {
			dst = append(dst, `,"tried":true`...)
		}
		dst = append(dst, '}')
	}
	return append(dst, `]}`...)
}

// appendAnswer appends PROTOCOL P9.9 or P12.10.
func appendAnswer(dst []byte, a *Answer) []byte {
	dst = append(dst, `{"answer":{"id":`...)
	dst = strconv.AppendUint(dst, a.ID, 10)
	dst = append(dst, ',')
	switch {
	case a.Refused != nil:
		dst = append(dst, `"error":`...)
		dst = AppendReasonJSON(dst, a.Refused.Reason)
	case a.History != nil:
		dst = AppendHistoryJSON(dst, a.History)
	default:
		dst = appendPayload(dst, a.Kind, a.Data)
	}
	return append(dst, `}}`...)
}

// appendPresence appends PROTOCOL P10.2 or P10.4.
func appendPresence(dst []byte, f *Frame) []byte {
	p := f.Presence
	dst = append(dst, `{"channel":`...)
	dst = appendString(dst, f.Channel)
	dst = append(dst, `,"presence":{`...)
	if p.Refused != nil {
		dst = append(dst, `"end":`...)
		dst = AppendReasonJSON(dst, p.Refused.Reason)
		return append(dst, `}}`...)
	}
	dst = append(dst, `"version":`...)
	dst = appendString(dst, p.Version)
	dst = append(dst, `,"total":`...)
	dst = strconv.AppendInt(dst, int64(p.Total), 10)
	if p.Members != nil {
		dst = appendMembers(dst, `,"members":[`, p.Members)
	}
	if p.Joined != nil || p.Left != nil {
		dst = appendMembers(dst, `,"joined":[`, p.Joined)
		dst = append(dst, `,"left":[`...)
		for i, id := range p.Left {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, id)
		}
		dst = append(dst, ']')
	}
	return append(dst, `}}`...)
}

func appendMembers(dst []byte, begin string, members []Member) []byte {
	dst = append(dst, begin...)
	for i, m := range members {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"id":`...)
		dst = appendString(dst, m.ID)
		if m.Subject != "" {
			dst = append(dst, `,"subject":`...)
			dst = appendString(dst, m.Subject)
		}
		if len(m.Info) > 0 {
			dst = append(dst, `,"info":`...)
			dst = appendOneLine(dst, m.Info)
		}
		dst = append(dst, '}')
	}
	return append(dst, ']')
}
