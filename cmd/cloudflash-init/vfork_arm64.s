#include "textflag.h"

// func vfork(args *cloneArgs, size uintptr) (pid, errno uintptr)
// The return address is in R30, out of the child's reach.
TEXT ·vfork(SB), NOSPLIT|NOFRAME, $0-32
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	$435, R8	// SYS_CLONE3
	SVC
	CMN	$4095, R0
	BCC	done
	NEG	R0, R0
	MOVD	$-1, R1
	MOVD	R1, pid+16(FP)
	MOVD	R0, errno+24(FP)
	RET
done:
	MOVD	R0, pid+16(FP)
	MOVD	ZR, errno+24(FP)
	RET
