// Package cloudlet has what is true of every cloudlet whatever VM it is in: what may be
// asked for, what it is started with, what becomes of it by how its process ended, and
// which times are shown of it. It is pure.
package cloudlet
