"""The system calls that programs may make: what Python, g++ and Java run under, and no other.

An allow-list, as container engines have one, and shorter than theirs: nothing here mounts, traces, locks files, watches
files, makes files in memory, sends messages or semaphores of System V, changes users, schedules others or loads code
into the kernel. A call that the list does not know is refused (EPERM), one newer than it does not exist (ENOSYS), so
that libraries fall back to what they did before.

The list is classic BPF, assembled here: libseccomp's own Python binding is in no package index, the C library need not
be installed, and the program is this one list with a dozen rules on arguments.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import socket
import struct
from collections.abc import Iterator

# name:number on x86-64:number on ARM64, which lacks the older calls
_FREE = """
    accept:43:202 accept4:288:242 access:21: alarm:37: arch_prctl:158: brk:12:214 capget:125:90 chdir:80:49
    chmod:90: chown:92: clock_getres:229:114 clock_gettime:228:113 clock_nanosleep:230:115 close:3:57
    close_range:436:436 copy_file_range:326:285 creat:85: dup:32:23 dup2:33: dup3:292:24 epoll_create:213:
    epoll_create1:291:20 epoll_ctl:233:21 epoll_pwait:281:22 epoll_pwait2:441:441 epoll_wait:232: eventfd:284:
    eventfd2:290:19 execve:59:221 execveat:322:281 exit:60:93 exit_group:231:94 faccessat:269:48 faccessat2:439:439
    fadvise64:221:223 fallocate:285:47 fchdir:81:50 fchmod:91:52 fchmodat:268:53 fchmodat2:452:452 fchown:93:55
    fchownat:260:54 fdatasync:75:83 fgetxattr:193:10 flistxattr:196:13 fork:57: fstat:5:80 fstatfs:138:44
    fsync:74:82 ftruncate:77:46 futex:202:98 futex_requeue:456:456 futex_wait:455:455 futex_waitv:449:449
    futex_wake:454:454 futimesat:261: get_robust_list:274:100 getcpu:309:168 getcwd:79:17 getdents:78:
    getdents64:217:61 getegid:108:177 geteuid:107:175 getgid:104:176 getgroups:115:158 getitimer:36:102
    getpeername:52:205 getpgid:121:155 getpgrp:111: getpid:39:172 getppid:110:173 getpriority:140:141
    getrandom:318:278 getresgid:120:150 getresuid:118:148 getrlimit:97:163 getrusage:98:165 getsid:124:156
    getsockname:51:204 getsockopt:55:209 gettid:186:178 gettimeofday:96:169 getuid:102:174 getxattr:191:8 lchown:94:
    lgetxattr:192:9 link:86: linkat:265:37 listen:50:201 listxattr:194:11 llistxattr:195:12 lseek:8:62 lstat:6:
    madvise:28:233 membarrier:324:283 mkdir:83: mkdirat:258:34 mknod:133: mknodat:259:33 mlock:149:228
    mlock2:325:284 mlockall:151:230 mmap:9:222 mprotect:10:226 mremap:25:216 msync:26:227 munlock:150:229
    munlockall:152:231 munmap:11:215 nanosleep:35:101 newfstatat:262:79 open:2: openat:257:56 openat2:437:437
    pause:34: pidfd_open:434:434 pipe:22: pipe2:293:59 poll:7: ppoll:271:73 pread64:17:67 preadv:295:69
    preadv2:327:286 pselect6:270:72 pwrite64:18:68 pwritev:296:70 pwritev2:328:287 read:0:63 readlink:89:
    readlinkat:267:78 readv:19:65 recvfrom:45:207 recvmmsg:299:243 recvmsg:47:212 rename:82: renameat:264:38
    renameat2:316:276 restart_syscall:219:128 rmdir:84: rseq:334:293 rt_sigaction:13:134 rt_sigpending:127:136
    rt_sigprocmask:14:135 rt_sigreturn:15:139 rt_sigsuspend:130:133 rt_sigtimedwait:128:137
    sched_get_priority_max:146:125 sched_get_priority_min:147:126 sched_getaffinity:204:123 sched_getattr:315:275
    sched_getparam:143:121 sched_getscheduler:145:120 sched_rr_get_interval:148:127 sched_yield:24:124 select:23:
    sendfile:40:71 sendmmsg:307:269 sendmsg:46:211 sendto:44:206 set_robust_list:273:99 set_tid_address:218:96
    setitimer:38:103 setpgid:109:154 setrlimit:160:164 setsid:112:157 setsockopt:54:208 shutdown:48:210
    sigaltstack:131:132 signalfd:282: signalfd4:289:74 splice:275:76 stat:4: statfs:137:43 statx:332:291 symlink:88:
    symlinkat:266:36 sysinfo:99:179 time:201: timer_create:222:107 timer_delete:226:111 timer_getoverrun:225:109
    timer_gettime:224:108 timer_settime:223:110 timerfd_create:283:85 timerfd_gettime:287:87 timerfd_settime:286:86
    times:100:153 truncate:76:45 umask:95:166 uname:63:160 unlink:87: unlinkat:263:35 utime:132: utimensat:280:88
    utimes:235: vfork:58: wait4:61:260 waitid:247:95 write:1:64 writev:20:66
"""
_BY_ARGUMENT = """
    ioctl:16:29 fcntl:72:25 socket:41:198 socketpair:53:199 connect:42:203 bind:49:200 clone:56:220 clone3:435:435
    kill:62:129 tkill:200:130 tgkill:234:131 prctl:157:167 prlimit64:302:261 setpriority:141:140
    sched_setaffinity:203:122
"""
_NEWEST = 462  # the last number that was looked at

_NAMESPACES = 0x7E020000  # flags of clone that make any
_FCNTL = (0, 1, 2, 3, 4, 1030, 1031, 1032)  # duplicate, flags, size of a pipe: no locks, leases, signals or notices
_IOCTL = (0x5401, 0x540F, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # is it a terminal, bytes waiting, blocking, on exec
_PRCTL = (1, 2, 3, 4, 7, 8, 15, 16, 21, 23, 27, 29, 30, 36, 37, 38, 39, 41, 42, 54, 55, 56, 63, 64, 0x53564D41)
_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)  # of a network of its own
_CONNECTED = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)  # socket pairs that reach nobody else

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _JUMP, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x05, 0x54, 0x06
_PERMIT, _REFUSE, _UNKNOWN, _NO_TERMINAL, _KILL = (
    0x7FFF0000,
    0x50001,
    0x50026,
    0x50019,
    0x80000000,
)  # errnos in the middle
_OFFSET_ARCH, _OFFSET_ARGUMENTS = 4, 16
Code = list[tuple[int, int, int, int]]


def machine() -> str:
    """This machine's name if there is a filter for it, or ""."""
    return platform.machine() if platform.machine() in _ARCHITECTURES else ""


@functools.cache
def numbers(name: str) -> dict[str, int]:
    """The calls without and with rules on their arguments, by name, on one of the two machines."""
    column = 1 if name == "x86_64" else 2
    listed = (item.split(":") for item in (_FREE + _BY_ARGUMENT).split())
    return {item[0]: int(item[column]) for item in listed if item[column]}


@functools.cache
def assembled(networked: bool, pid: int) -> tuple[bytes, object]:
    """A `struct sock_fprog`, and the BPF program of 8 bytes an instruction that it points to.

    Args:
        networked: the program is in a network of its own, so that sockets reach nothing.
        pid: the only process, besides those it leads, that it may send signals to; 0 where others cannot be reached.
    """
    known = numbers(machine())
    code: Code = [(_LOAD, 0, 0, _OFFSET_ARCH), (_EQUAL, 1, 0, _ARCHITECTURES[machine()]), (_RETURN, 0, 0, _KILL)]
    code += [(_LOAD, 0, 0, 0)]
    if machine() == "x86_64":  # the x32 way to the same system calls
        code += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _REFUSE)]
    rules = {known[name]: rule for name, rule in _rules(networked, pid)}
    free = {number for item in _FREE.split() if (number := known.get(item.partition(":")[0])) is not None}
    permit, refuse, unknown = ([(_RETURN, 0, 0, action)] for action in (_PERMIT, _REFUSE, _UNKNOWN))
    actions: list[Code] = [rules.get(n, permit if n in free else refuse) for n in range(_NEWEST + 1)]
    firsts = [n for n in range(_NEWEST + 1) if n == 0 or actions[n] is not actions[n - 1]]
    code += _decided([*((n, actions[n]) for n in firsts), (_NEWEST + 1, unknown)])
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
    buffer = ctypes.create_string_buffer(packed, len(packed))
    return struct.pack("=HxxxxxxQ", len(packed) // 8, ctypes.addressof(buffer)), buffer


def _decided(parts: list[tuple[int, Code]]) -> Code:
    """A search among runs of numbers, given by their first ones, that ends in the code of the run: the kernel tries
    every number when a filter is set, which happens for each program."""
    if len(parts) == 1:
        return parts[0][1]
    middle = len(parts) // 2
    below, above = _decided(parts[:middle]), _decided(parts[middle:])
    if len(below) < 256:  # the furthest that a condition jumps
        return [(_AT_LEAST, len(below), 0, parts[middle][0]), *below, *above]
    return [(_AT_LEAST, 0, 1, parts[middle][0]), (_JUMP, 0, 0, len(below)), *below, *above]


def _one_of(argument: int, values: tuple[int, ...], otherwise: int = _REFUSE) -> Code:
    """Permits a call whose argument, of 32 bits, is one of the values."""
    checks: Code = [(_EQUAL, len(values) - i, 0, value & 0xFFFFFFFF) for i, value in enumerate(values)]
    return [
        (_LOAD, 0, 0, _OFFSET_ARGUMENTS + 8 * argument),
        *checks,
        (_RETURN, 0, 0, otherwise),
        (_RETURN, 0, 0, _PERMIT),
    ]


def _rules(networked: bool, pid: int) -> Iterator[tuple[str, Code]]:
    """(system call, instructions that decide by its arguments)."""
    refuse: Code = [(_RETURN, 0, 0, _REFUSE)]
    first = (_LOAD, 0, 0, _OFFSET_ARGUMENTS)
    yield "clone", [first, (_ANY_BIT, 0, 1, _NAMESPACES), *refuse, (_RETURN, 0, 0, _PERMIT)]
    yield "clone3", [(_RETURN, 0, 0, _UNKNOWN)]  # its arguments lie in memory; libraries fall back to clone
    yield "fcntl", _one_of(1, _FCNTL)
    yield "ioctl", _one_of(1, _IOCTL, _NO_TERMINAL)
    yield "prctl", _one_of(0, _PRCTL)
    for name in ("prlimit64", "sched_setaffinity"):  # of itself
        yield name, _one_of(0, (0,))
    yield "setpriority", [first, (_EQUAL, 1, 0, 0), *refuse, *_one_of(1, (0,))]
    kinds = (_LOAD, 0, 0, _OFFSET_ARGUMENTS + 8), (_AND, 0, 0, 0xF)
    pair: Code = [*kinds, *((_EQUAL, 2 - i, 0, int(kind)) for i, kind in enumerate(_CONNECTED)), *refuse]
    pair = [first, (_EQUAL, 1, 0, socket.AF_UNIX), *refuse, *pair, (_RETURN, 0, 0, _PERMIT)]
    yield "socketpair", pair
    yield "socket", _one_of(0, tuple(map(int, _FAMILIES))) if networked else pair  # which reaches nothing unconnected
    yield from ((name, [(_RETURN, 0, 0, _PERMIT)] if networked else refuse) for name in ("bind", "connect"))
    if pid:
        yield "tkill", refuse
        yield from ((name, _one_of(0, (0, pid))) for name in ("kill", "tgkill"))
    else:
        yield from ((name, [(_RETURN, 0, 0, _PERMIT)]) for name in ("tkill", "kill", "tgkill"))
