package transport

import (
	"encoding/base64"
	"strconv"
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
	switch e.Kind {
	case eventlog.Binary:
		dst = append(dst, `,"encoding":"base64","data":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, e.Data)
		dst = append(dst, '"')
	case eventlog.Text:
		dst = append(dst, `,"data":`...)
		dst = appendString(dst, string(e.Data))
	default:
		dst = append(dst, `,"data":`...)
		dst = appendOneLine(dst, e.Data)
	}
	return append(dst, '}')
}

// appendOneLine appends valid JSON without line breaks: in JSON they can only
// be white space, as strings have them escaped.
func appendOneLine(dst, json []byte) []byte {
	start := len(dst)
	dst = append(dst, json...)
	for i := start; i < len(dst); i++ {
		if dst[i] == '\n' || dst[i] == '\r' {
			dst[i] = ' '
		}
	}
	return dst
}

// AppendFrameJSON appends a frame as the JSON object that PROTOCOL has for it.
func AppendFrameJSON(dst []byte, f *Frame) []byte {
	switch f.Kind {
	case FrameOpen:
		dst = append(dst, `{"open":{"version":`...)
		dst = strconv.AppendInt(dst, Version, 10)
		dst = append(dst, `,"line":`...)
		dst = strconv.AppendUint(dst, f.Line, 10)
		dst = append(dst, `,"heartbeat":`...)
		dst = strconv.AppendInt(dst, f.Heartbeat.Milliseconds(), 10)
		return append(dst, `}}`...)
	case FrameOpening:
		dst = append(dst, `{"channel":`...)
		dst = appendString(dst, f.Channel)
		dst = append(dst, `,"position":"`...)
		dst = f.At.Append(dst)
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
	default:
		return append(dst, `{}`...)
	}
}

func appendGap(dst []byte, f *Frame) []byte {
	dst = append(dst, `{"channel":`...)
	dst = appendString(dst, f.Channel)
	dst = append(dst, `,"gap":{"from":"`...)
	dst = f.Lost.From.Append(dst)
	dst = append(dst, `","to":"`...)
	dst = f.Lost.To.Append(dst)
	dst = append(dst, `","reason":`...)
	dst = appendString(dst, string(f.Lost.Reason))
	return append(dst, `}}`...)
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
	if r.Message != "" {
		dst = append(dst, `,"message":`...)
		dst = appendString(dst, r.Message)
	}
	return append(dst, '}')
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
