package wireclient

import (
	"bufio"
	"io"
	"strings"
)

// A Block is what a stream of Server-Sent Events is made of.
type Block struct {
	ID      string // the last event ID after this block
	Event   string // "message" if none was named
	Data    string
	HasData bool
	Retry   string
	HasID   bool // an id was set by it
	Comment bool // nothing but a comment
}

// A Parser reads a stream by WHATWG HTML §9.2.6. A block that is not finished
// when the stream ends is dropped, as the standard has it.
type Parser struct {
	r *bufio.Reader
	// LastEventID is what the next request presents.
	LastEventID string
}

// NewParser returns a parser of r.
func NewParser(r io.Reader) *Parser { return &Parser{r: bufio.NewReader(r)} }

// Next returns the next block.
func (p *Parser) Next() (Block, error) {
	b := Block{Event: "message"}
	id, idSet, any := "", false, false
	var data []string
	for {
		line, err := p.r.ReadString('\n')
		if err != nil {
			return Block{}, err
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			if !any {
				continue
			}
			if idSet {
				p.LastEventID = id
			}
			b.ID, b.HasID = p.LastEventID, idSet
			b.HasData = data != nil
			b.Data = strings.Join(data, "\n")
			return b, nil
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		b.Comment = name == "" && !any
		any = true
		switch name {
		case "id":
			id, idSet = value, true
		case "data":
			data = append(data, value)
		case "event":
			b.Event = value
		case "retry":
			b.Retry = value
		}
	}
}
