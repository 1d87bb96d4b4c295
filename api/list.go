package api

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"slices"

	"cloudflash/api/problem"
)

// Paging is the query of every list.
type Paging struct {
	Limit     int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Most items to answer with"`
	PageToken string `query:"page_token" doc:"next_page_token of the page before"`
}

// list is the answer of every list.
type list[T any] struct {
	Items         []T    `json:"items" nullable:"false"`
	Total         int    `json:"total" doc:"How many there are on all pages"`
	NextPageToken string `json:"next_page_token" doc:"Empty on the last page"`
}

type listOutput[T any] struct{ Body list[T] }

// cursor is where a page ends. A list is in the order of descending At, then
// ascending Key, so that what comes and goes between two pages makes no item
// appear twice or not at all.
type cursor struct {
	At  int64  `json:"a"`
	Key string `json:"k"`
}

func compareCursors(x, y cursor) int {
	return cmp.Or(cmp.Compare(y.At, x.At), cmp.Compare(x.Key, y.Key))
}

// cut returns one page of all, which it sorts by where at puts each item.
func cut[T any](all []T, p Paging, at func(T) cursor) (*listOutput[T], error) {
	slices.SortFunc(all, func(x, y T) int { return compareCursors(at(x), at(y)) })
	rest := all
	if p.PageToken != "" {
		after, err := parseCursor(p.PageToken)
		if err != nil {
			return nil, err
		}
		i, _ := slices.BinarySearchFunc(all, after, func(x T, c cursor) int {
			return cmp.Or(compareCursors(at(x), c), -1) // the item itself ended the page before
		})
		rest = all[i:]
	}
	out := list[T]{Items: append([]T{}, rest[:min(p.Limit, len(rest))]...), Total: len(all)}
	if len(rest) > p.Limit {
		out.NextPageToken = at(rest[p.Limit-1]).token()
	}
	return &listOutput[T]{Body: out}, nil
}

func (c cursor) token() string {
	b, _ := json.Marshal(c) // a number and a string: cannot fail
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseCursor(token string) (cursor, error) {
	var c cursor
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		return c, refuseFields("invalid_page_token", []problem.Field{{Pointer: "?page_token", Detail: "is not one that this list has answered with"}})
	}
	return c, nil
}

// filter keeps what matches.
func filter[T any](all []T, keep func(T) bool) []T {
	var kept []T
	for _, v := range all {
		if keep(v) {
			kept = append(kept, v)
		}
	}
	return kept
}
