/*
 * Lets user-mode Linux 6.1 run on a CPU with AMX. On such a CPU, with-netem builds and preloads this library.
 *
 * UML keeps 2696 bytes of floating-point state for each of its processes. Linux accepts a state (PTRACE_SETREGSET) only
 * in full size, which is 11008 bytes with AMX. So UML's first process fails with "ptrace set fp regs failed,
 * errno = 14". The missing bytes at the end are AMX's own state. No process in UML uses AMX, so zeros are correct.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

/* Another name in C, because the header declares ptrace() with variable arguments. */
long our_ptrace(long request, long pid, void *addr, void *data) __asm__("ptrace");

long our_ptrace(long request, long pid, void *addr, void *data)
{
	static long (*libc_ptrace)(long, long, void *, void *);
	static char state[64 * 1024];
	static size_t full_size;

	if (!libc_ptrace)
		libc_ptrace = (long (*)(long, long, void *, void *))dlsym(RTLD_NEXT, "ptrace");
	if (request != PTRACE_SETREGSET || addr != (void *)NT_X86_XSTATE)
		return libc_ptrace(request, pid, addr, data);

	const struct iovec *given = data;
	struct iovec full = { state, sizeof(state) };
	if (!full_size) {
		if (libc_ptrace(PTRACE_GETREGSET, pid, addr, &full) < 0)
			return -1;
		full_size = full.iov_len;
		memset(state, 0, sizeof(state));
	}
	if (given->iov_len >= full_size)
		return libc_ptrace(request, pid, addr, data);
	memcpy(state, given->iov_base, given->iov_len);
	full.iov_len = full_size;
	return libc_ptrace(request, pid, addr, &full);
}
