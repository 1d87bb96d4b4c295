// This file is empty: it lets the package declare functions without a body,
// see the linknames in child.go.
