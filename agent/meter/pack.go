package meter

import (
	"encoding/binary"
	"errors"
)

// chunkPoints is how many points are packed together.
const chunkPoints = 30

// A column is one number per point: the means of a series, or its least or most.
type column = [chunkPoints]code

var errPacked = errors.New("malformed chunk")

// pack appends columns in the order of a chunk: per series the means, then how
// far the least and the most are from them. What does not change, or only a
// little, is short: codes are logarithmic, so one byte holds a step of 6 %.
func pack(dst []byte, columns []column, width int) []byte {
	var d [chunkPoints]int
	for s := 0; s < len(columns); s += width {
		last := 0
		for i, c := range columns[s] {
			d[i] = int(c) - last
			last = int(c)
		}
		dst = packRuns(dst, &d)
		for w := 1; w < width; w++ {
			for i, c := range columns[s+w] {
				d[i] = int(c) - int(columns[s][i])
			}
			dst = packRuns(dst, &d)
		}
	}
	return dst
}

// packRuns writes numbers as varints, and a run of zeros as a zero and its length.
func packRuns(dst []byte, all *[chunkPoints]int) []byte {
	for i := 0; i < len(all); {
		dst = binary.AppendVarint(dst, int64(all[i]))
		if all[i] != 0 {
			i++
			continue
		}
		run := 1
		for i+run < len(all) && all[i+run] == 0 {
			run++
		}
		dst = append(dst, byte(run))
		i += run
	}
	return dst
}

// unpack is the reverse of pack. It believes nothing of what it reads.
func unpack(b []byte, columns []column, width int) error {
	var d [chunkPoints]int
	for s := 0; s < len(columns); s += width {
		var err error
		if b, err = unpackRuns(b, &d); err != nil {
			return err
		}
		last := 0
		for i, step := range d {
			last += step
			if columns[s][i], err = codeOf(last); err != nil {
				return err
			}
		}
		for w := 1; w < width; w++ {
			if b, err = unpackRuns(b, &d); err != nil {
				return err
			}
			for i, step := range d {
				if columns[s+w][i], err = codeOf(int(columns[s][i]) + step); err != nil {
					return err
				}
			}
		}
	}
	if len(b) > 0 {
		return errPacked
	}
	return nil
}

func codeOf(n int) (code, error) {
	if n < 0 || n > int(gap) {
		return 0, errPacked
	}
	return code(n), nil
}

func unpackRuns(b []byte, all *[chunkPoints]int) ([]byte, error) {
	for i := 0; i < len(all); {
		v, n := binary.Varint(b)
		if n <= 0 || v < -int64(gap) || v > int64(gap) {
			return nil, errPacked
		}
		b = b[n:]
		if v != 0 {
			all[i] = int(v)
			i++
			continue
		}
		if len(b) == 0 || b[0] == 0 || int(b[0]) > len(all)-i {
			return nil, errPacked
		}
		clear(all[i : i+int(b[0])])
		i += int(b[0])
		b = b[1:]
	}
	return b, nil
}
