package transport

import (
	"encoding/base64"
	"encoding/json"

	"github.com/throughline/throughline/eventlog"
)

// Bounds of what a client says (PROTOCOL P9.2, P9.11).
const (
	maxBatchFrames   = 64
	maxFrameMessages = 100
	minProducer      = 22
	maxName          = 64 // of a producer, or of a call's key
	maxCallName      = 200
)

type wirePublish struct {
	Producer string                 `json:"producer"`
	Frames   list[wirePublishFrame] `json:"frames"`
}

type wirePublishFrame struct {
	Seq      uint64            `json:"seq"`
	Channel  string            `json:"channel"`
	Messages list[wireMessage] `json:"messages"`
	Repeat   bool              `json:"repeat"`
}

type wireMessage struct {
	Type string `json:"type"`
	wirePayload
}

type wireCall struct {
	ID   uint64 `json:"id"`
	Name string `json:"name"`
	Key  string `json:"key"`
	wirePayload
}

type wirePayload struct {
	Data     json.RawMessage `json:"data"`
	Encoding string          `json:"encoding"`
}

// parse reads a batch. The error is a *Refusal.
func (w *wirePublish) parse() (*Publish, error) {
	if len(w.Producer) < minProducer || !isName(w.Producer) {
		return nil, Refuse(CodeBadRequest, "a producer is %d to %d characters of A-Z, a-z, 0-9, _ and -, and should be random", minProducer, maxName)
	}
	if len(w.Frames) == 0 || len(w.Frames) > maxBatchFrames {
		return nil, Refuse(CodeBadRequest, "a batch has 1 to %d frames", maxBatchFrames)
	}
	p := &Publish{Producer: w.Producer, Frames: make([]PublishFrame, 0, len(w.Frames))}
	seen := make(map[string]bool, len(w.Frames))
	last := uint64(0)
	for i := range w.Frames {
		f, err := w.Frames[i].parse()
		switch {
		case err != nil:
			return nil, err
		case f.Seq <= last:
			return nil, Refuse(CodeBadRequest, "the numbers of a batch begin at 1 and rise: %d follows %d", f.Seq, last)
		case seen[f.Channel]:
			return nil, Refuse(CodeBadRequest, "a batch has one frame for each channel, not two for %.40q", f.Channel)
		}
		last = f.Seq
		seen[f.Channel] = true
		p.Frames = append(p.Frames, f)
	}
	return p, nil
}

func (w *wirePublishFrame) parse() (PublishFrame, error) {
	f := PublishFrame{Seq: w.Seq, Channel: w.Channel, Repeat: w.Repeat}
	if len(w.Messages) == 0 || len(w.Messages) > maxFrameMessages {
		return f, Refuse(CodeBadRequest, "a frame of a batch has 1 to %d messages", maxFrameMessages)
	}
	f.Messages = make([]eventlog.Message, 0, len(w.Messages))
	for _, m := range w.Messages {
		payload, err := m.parse()
		if err != nil {
			return f, err
		}
		f.Messages = append(f.Messages, eventlog.Message{Type: m.Type, Kind: payload.Kind, Data: payload.Data})
	}
	return f, nil
}

func (w *wireCall) parse() (*Call, error) {
	if w.Name == "" || len(w.Name) > maxCallName {
		return nil, Refuse(CodeBadRequest, "a call has a name of 1 to %d bytes", maxCallName)
	}
	if w.Key != "" && !isName(w.Key) {
		return nil, Refuse(CodeBadRequest, "the key of a call is 1 to %d characters of A-Z, a-z, 0-9, _ and -", maxName)
	}
	payload, err := w.wirePayload.parse()
	return &Call{ID: w.ID, Name: w.Name, Key: w.Key, Payload: payload}, err
}

func (w *wirePayload) parse() (Payload, error) {
	if w.Data == nil {
		return Payload{}, Refuse(CodeBadRequest, "data is missing")
	}
	var text string
	switch w.Encoding {
	case "":
		return Payload{Kind: eventlog.JSON, Data: w.Data}, nil
	case "text", "base64":
		if err := json.Unmarshal(w.Data, &text); err != nil {
			return Payload{}, Refuse(CodeBadRequest, "with the encoding %s, data is a string", w.Encoding)
		}
	default:
		return Payload{}, Refuse(CodeBadRequest, "the encoding %.40q is none of text, base64", w.Encoding)
	}
	if w.Encoding == "text" {
		return Payload{Kind: eventlog.Text, Data: []byte(text)}, nil
	}
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return Payload{}, Refuse(CodeBadRequest, "data is not base64 (RFC 4648 section 4)")
	}
	return Payload{Kind: eventlog.Binary, Data: data}, nil
}

// isName reports whether s is 1 to 64 characters of base64url's alphabet.
func isName(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return s != "" && len(s) <= maxName
}
