package transport

import "encoding/json"

// Bounds of a list in a frame. The engine has its own, but is asked only after
// all is read, and an element may take many times the memory of its text.
const (
	maxList   = 1 << 14
	usualList = 128
)

// bound is how many elements of a type a list may have, and what they are.
func bound[T any]() (most int, what string) {
	switch any(*new(T)).(type) {
	case wirePublishFrame:
		return maxBatchFrames, "frames in a batch"
	case wireMessage:
		return maxFrameMessages, "messages in a frame"
	}
	return maxList, "elements in a list"
}

// A list is a member that is an array. It is counted before anything is made of
// it. One that is named twice counts as it was named last, as in JavaScript:
// encoding/json would mix the elements of both.
type list[T any] []T

// UnmarshalJSON implements [json.Unmarshaler]. text is valid JSON.
func (l *list[T]) UnmarshalJSON(text []byte) error {
	n := elements(text)
	if most, what := bound[T](); n > most {
		return Refuse(CodeBadRequest, "%d %s are more than %d", n, what, most)
	}
	fresh := make([]T, 0, n)
	err := json.Unmarshal(text, &fresh)
	*l = fresh
	return err
}

// An object is a member that is an object. One that is named twice counts as it
// was named last, too.
type object[T any] struct{ v *T }

// UnmarshalJSON implements [json.Unmarshaler].
func (o *object[T]) UnmarshalJSON(text []byte) error {
	o.v = nil
	return json.Unmarshal(text, &o.v)
}

// elements counts the elements of an array, as far as its text tells without
// being read: an empty one counts as one.
func elements(text []byte) int {
	n, depth := 1, 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case ',':
			if depth == 1 {
				n++
			}
		}
	}
	return n
}
