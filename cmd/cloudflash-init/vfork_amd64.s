#include "textflag.h"

// func vfork(args *cloneArgs, size uintptr) (pid, errno uintptr)
TEXT ·vfork(SB), NOSPLIT|NOFRAME, $0-32
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	$435, AX	// SYS_CLONE3
	POPQ	R12		// the return address, kept where the child cannot reach it
	SYSCALL
	PUSHQ	R12
	CMPQ	AX, $0xfffffffffffff001
	JLS	done
	NEGQ	AX
	MOVQ	$-1, pid+16(FP)
	MOVQ	AX, errno+24(FP)
	RET
done:
	MOVQ	AX, pid+16(FP)
	MOVQ	$0, errno+24(FP)
	RET
