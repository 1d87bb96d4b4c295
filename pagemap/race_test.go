//go:build race

package pagemap

const underRace = true
