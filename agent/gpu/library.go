package gpu

import "errors"

// errNotBuilt is the answer of a build without NVML.
var errNotBuilt = errors.New("built without NVML (tag nvml)")

// library is NVML. Its calls may hang when a GPU has fallen off its bus.
type library interface {
	cards() ([]card, error)
	sample() ([]UnitUse, []ProcessUse, error) // what could be read, beside the error
	close() error
}
