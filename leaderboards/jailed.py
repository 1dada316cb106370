"""The program inside the jail: it is handed a network and answers observations with scores. It needs NumPy and `network` alone.

Started as `python -I jailed.py FOLDER` by `matchgym.leaderboards.jail`, with FOLDER holding network.py. On standard input comes
first the network (a line of JSON, then its constants as float32), then batches: the number of rows as uint32, and the rows as
float32. To each batch it answers with the scores as float32 on standard output. When all is read and imported, it gives up
what it does not need: `confine` limits memory, time and files, and allows a handful of system calls. Any other call kills it.
"""

import ctypes
import json
import platform
import resource
import struct
import sys
from typing import Any

MEMORY, SECONDS = 1 << 30, 3600
LARGEST_BATCH, WARM_UP = 4096, 256

# System calls that arithmetic, reading and writing of open pipes, and an orderly end need, by machine: (audit arch, numbers).
_X86_64 = {
    "read": 0, "write": 1, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13,
    "rt_sigprocmask": 14, "rt_sigreturn": 15, "mremap": 25, "madvise": 28, "sched_yield": 24, "getpid": 39, "exit": 60,
    "sigaltstack": 131, "futex": 202, "clock_gettime": 228, "exit_group": 231, "mbind": 237,
}  # fmt: skip
_AARCH64 = {
    "lseek": 62, "read": 63, "write": 64, "exit": 93, "exit_group": 94, "futex": 98, "clock_gettime": 113, "sched_yield": 124,
    "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "getpid": 172, "brk": 214,
    "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233, "mbind": 235,
}  # fmt: skip
MACHINES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}

_LOAD, _EQUAL, _SET, _RETURN = 0x20, 0x15, 0x45, 0x06  # BPF: ld [k], jeq k, jset k, ret k
_KILL, _ALLOW = 0x80000000, 0x7FFF0000
_NUMBER, _ARCH, _PROTECTION = 0, 4, 32  # offsets in struct seccomp_data; the third argument's low half
_PROT_EXEC = 4


def seccomp_program(machine: str) -> bytes:
    """The filter as an array of struct sock_filter: kill on any call that is not listed, and on making memory executable."""
    arch, calls = MACHINES[machine]
    lines = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    for name in ("mmap", "mprotect"):
        lines += [(_EQUAL, 0, 4, calls[name]), (_LOAD, 0, 0, _PROTECTION), (_SET, 0, 1, _PROT_EXEC)]
        lines += [(_RETURN, 0, 0, _KILL), (_RETURN, 0, 0, _ALLOW)]
    for name, number in calls.items():
        if name not in ("mmap", "mprotect"):
            lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    lines.append((_RETURN, 0, 0, _KILL))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def confine() -> None:
    """Limit this process for good; raises OSError or KeyError if that is not possible here, and then nothing must be run."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    for nothing in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(nothing, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    code = seccomp_program(platform.machine())
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(set_seccomp, filter_mode, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp cannot be set")


def read_exactly(size: int) -> bytes:
    data = sys.stdin.buffer.read(size)
    if len(data) != size:
        sys.exit(0)  # the parent has gone
    return data


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    import network  # type: ignore[import-not-found]  # lies beside this file in the jail
    import numpy as np

    # Read the network.
    head: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    constants = {}
    for name, shape in head["constants"]:
        size = int(np.prod(shape, dtype=np.int64))
        constants[name] = np.frombuffer(read_exactly(4 * size), np.float32).reshape(shape)
    layers = tuple(network.Layer(*layer) for layer in head["layers"])
    policy = network.Network(head["n_inputs"], head["n_outputs"], head["input"], head["output"], constants, layers)
    for rows in (2, WARM_UP):  # libraries load late what they need, and take memory for large products
        policy.run(np.zeros((rows, policy.n_inputs), np.float32))
    platform.machine()
    confine()
    sys.stdout.buffer.write(b"ready")
    sys.stdout.buffer.flush()

    # Answer.
    while True:
        (rows,) = struct.unpack("=I", read_exactly(4))
        if rows > LARGEST_BATCH:
            sys.exit(1)
        table = np.frombuffer(read_exactly(4 * rows * policy.n_inputs), np.float32).reshape(rows, policy.n_inputs)
        sys.stdout.buffer.write(np.ascontiguousarray(policy.run(table), np.float32).tobytes())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
