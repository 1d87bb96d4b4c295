package api

import (
	"net/http"
	"strconv"

	"cloudflash/api/problem"
)

// Paging is the query of every list.
type Paging struct {
	Limit     int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Most items to answer with"`
	PageToken string `query:"page_token" doc:"next_page_token of the page before"`
}

// list is the answer of every list.
type list[T any] struct {
	Items         []T    `json:"items"`
	Total         int    `json:"total" doc:"How many there are on all pages"`
	NextPageToken string `json:"next_page_token" doc:"Empty on the last page"`
}

type listOutput[T any] struct{ Body list[T] }

// cut returns one page of all. The token is the number of items before it.
func cut[T any](all []T, p Paging) (*listOutput[T], error) {
	from := 0
	if p.PageToken != "" {
		n, err := strconv.Atoi(p.PageToken)
		if err != nil || n < 0 {
			bad := problem.New(http.StatusUnprocessableEntity, "invalid_page_token", "page_token is not one that this list has answered with", "start without one")
			bad.Errors = []problem.Field{{Pointer: "?page_token", Detail: "is not a page token"}}
			return nil, bad
		}
		from = min(n, len(all))
	}
	to := min(from+p.Limit, len(all))
	out := list[T]{Items: append([]T{}, all[from:to]...), Total: len(all)}
	if to < len(all) {
		out.NextPageToken = strconv.Itoa(to)
	}
	return &listOutput[T]{Body: out}, nil
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
