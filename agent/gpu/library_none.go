//go:build !nvml || !cgo

package gpu

func openLibrary() (library, error) { return nil, errNotBuilt }
