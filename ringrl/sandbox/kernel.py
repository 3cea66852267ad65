"""Isolation by Linux, best first, through raw system calls: namespaces, capabilities, system call filter, limits.

| level           | needs                                | what holds besides limits and the system call filter      |
|-----------------|--------------------------------------|------------------------------------------------------------|
| user-namespaces | a kernel that grants them            | own processes, network, IPC, users; read-only root, tmpfs |
| namespaces      | root with CAP_SYS_ADMIN              | the same under an unprivileged uid, without own users     |
| uid             | root                                 | an unprivileged uid: not the user's processes and files   |
| process         | nothing                              | a directory of its own: no security boundary              |

The filter (x86-64 and ARM64) refuses ptrace, mounts, namespaces, keys, BPF, io_uring, anonymous files and System V IPC;
in the two lower levels internet sockets too, and in the last one signals to other processes.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import resource
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LEVELS = ("user-namespaces", "namespaces", "uid", "process")
NAMESPACED = LEVELS[:2]
FIRST_UID, UIDS = 60_001, 4_000  # each host that is root takes one of them for its programs
TMP_BYTES, TMP_FILES = 64 << 20, 4096  # size of a program's own /tmp
STACK_BYTES = 64 << 20

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
    0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)  # fmt: skip
_ANY_NEW = 0x7E020000
_RDONLY, _NOSUID, _NODEV, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_DETACH = 2
_STATVFS_TO_MOUNT = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}  # flags a remount must not lose
_SET_PDEATHSIG, _SET_DUMPABLE, _SET_SECCOMP, _SET_SUBREAPER, _SET_NO_NEW_PRIVS = 1, 4, 22, 36, 38
_CAPABILITY_VERSION = 0x20080522
_DEVICES = ("null", "zero", "full", "random", "urandom")
_libc = ctypes.CDLL(None, use_errno=True)


def _call(what: str, *args: object) -> None:
    if getattr(_libc, what)(*args) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def _syscall(name: str, *args: object) -> None:
    if _libc.syscall(_NUMBERS[name][_machine()], *args) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def _mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    args = [text.encode() if text else None for text in (source, target, kind)]
    _call("mount", *args, ctypes.c_ulong(flags), data.encode() if data else None)


def be_subreaper() -> None:
    """Orphans below this process become its children."""
    _call("prctl", _SET_SUBREAPER, 1, 0, 0, 0)


def set_dumpable(on: bool) -> None:
    """Whether processes of the same user may look into this one; children inherit it."""
    _call("prctl", _SET_DUMPABLE, int(on), 0, 0, 0)


# ---- the host's side ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where and as whom programs run."""

    level: str  # one of LEVELS
    uid: int  # user id of programs; the host's own if it need not be changed
    cwd: str


def enter(level: str, root: str, readable: Sequence[str]) -> Place:
    """Brings this process to `level`; `root` is an empty directory of ours, `readable` what programs may read.

    For the namespaces, the caller must then fork: its child is the first process of the new ones, and calls `settle`.

    Raises:
        OSError: the kernel refuses, or this user may not.
    """
    me = os.getuid()
    if _machine():
        _filter(level, 0)  # for all programs to come
    if level in ("namespaces", "uid") and me != 0:
        raise OSError("needs root")
    if level == "process":
        return Place(level, me, os.path.join(root, "cwd"))
    uid = _free_uid() if me == 0 else me  # while we are in the network where other hosts see that it is taken
    if level == "uid":
        _must_read(uid, os.__file__)
        os.chmod(root, 0o711)
        return Place(level, uid, os.path.join(root, "cwd"))
    if me == 0:  # bound while we may still read everything
        _call("unshare", _NEWNS)
        _build_root(root, readable, uid)
    rest = _NEWPID | _NEWIPC | _NEWUTS | _NEWNET
    if level == "namespaces":
        _call("unshare", rest)
        return Place(level, uid, "/tmp")
    if me == 0:
        become(uid)
        set_dumpable(True)  # else /proc/self belongs to root
    gid = os.getgid()
    _call("unshare", _NEWUSER | _NEWNS | rest)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    if me != 0:
        _build_root(root, readable, uid)
    return Place(level, uid, "/tmp")


def settle() -> str:
    """In the first process of the new namespaces: its own /proc. Returns what had to be left out, or ""."""
    try:
        _mount("proc", "/proc", "proc", _NOSUID | _NODEV)
        missing = ""
    except OSError as error:  # part of the outer /proc is hidden, as in some containers
        _mount("none", "/proc", "tmpfs", _RDONLY)
        missing = f"no /proc ({error.strerror})"
    set_dumpable(False)
    return missing


def renew_tmp(first: bool) -> None:
    """An empty /tmp; what was in the old one is gone with it. Also for what programs put in System V IPC."""
    if not first:
        _call("umount2", b"/tmp", _DETACH)
    _mount("tmpfs", "/tmp", "tmpfs", _NOSUID | _NODEV, f"size={TMP_BYTES},nr_inodes={TMP_FILES},mode=1777")
    if not _machine() and not first:  # no filter for this machine, so there may be segments
        _call("unshare", _NEWIPC)


def _build_root(root: str, readable: Sequence[str], uid: int) -> None:
    """A file tree of `readable` and a few devices, all read-only, becomes this mount namespace's root."""
    _mount("none", "/", flags=_REC | _PRIVATE)
    _mount("tmpfs", root, "tmpfs", _NOSUID, "size=1m,mode=755")
    for folder in ("/tmp", "/proc", "/dev", "/etc"):
        os.mkdir(root + folder, 0o755)
    os.symlink("/tmp", f"{root}/dev/shm")
    for name, number in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{number}", f"{root}/dev/{name}")
    for name in _DEVICES:
        _bind(f"/dev/{name}", root, 0)
    _mount("/proc", f"{root}/proc", flags=_BIND | _REC)  # the kernel grants a new one only where one is seen
    with open(f"{root}/etc/passwd", "w") as file:
        file.write(f"nobody:x:{uid}:{uid}::/tmp:/bin/false\n")
    for path in readable:
        if os.path.lexists(path) and not os.path.lexists(root + path):
            _bind(path, root, _RDONLY | _NOSUID | _NODEV)
    os.chdir(root)
    _syscall("pivot_root", b".", b".")
    _call("umount2", b".", _DETACH)
    os.chdir("/")
    _mount("none", "/", flags=_REMOUNT | _BIND | _RDONLY | _NOSUID)


def _bind(path: str, root: str, flags: int) -> None:
    """`path` at the same place under `root`; links stay links."""
    target = root + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.makedirs(target)
    else:
        open(target, "x").close()
    _mount(path, target, flags=_BIND | _REC)
    if flags:
        now = os.statvfs(target).f_flag
        kept = sum(mount for stat, mount in _STATVFS_TO_MOUNT.items() if now & stat)
        _mount("none", target, flags=_REMOUNT | _BIND | flags | kept)


def _free_uid() -> int:
    """A user id that no other host on this machine has; it is ours until this process ends."""
    for uid in range(FIRST_UID, FIRST_UID + UIDS):
        lock = socket.socket(socket.AF_UNIX)
        try:
            lock.bind(f"\0ringrl-sandbox-uid-{uid}")
        except OSError:
            lock.close()
            continue
        _locks.append(lock)
        return uid
    raise OSError(f"no free uid of {UIDS} from {FIRST_UID}")


_locks: list[socket.socket] = []  # kept open


def _must_read(uid: int, path: str) -> None:
    """Raises PermissionError unless a process of ours can become that user and read the file."""
    pid = os.fork()
    if pid == 0:
        try:
            become(uid)
            open(path).close()
        except OSError:
            os._exit(1)
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        raise PermissionError(f"uid {uid} cannot be taken, or cannot read {path}")


# ---- the program's side ------------------------------------------------------------------------------------


def become(uid: int) -> None:
    """Gives root up for good."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def confine(place: Place) -> None:
    """The last steps before untrusted code: another user, no capabilities, no way to gain any, the filter."""
    if os.getuid() != place.uid:
        become(place.uid)
    _call("prctl", _SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if place.level in NAMESPACED:
        header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
        _call("capset", header, bytes(24))
    set_dumpable(True)  # else its own /proc/self is closed to it
    if _machine():
        _call("prctl", _SET_SECCOMP, 2, _filter(place.level, os.getpid() if place.level == "process" else 0)[0], 0, 0)


def limit(kind: int, most: int, grace: int = 0) -> None:
    """Sets a resource limit, never above the one there is; `grace` is how much higher the hard one is."""
    ceiling = resource.getrlimit(kind)[1]
    hard = most + grace if ceiling == resource.RLIM_INFINITY else min(most + grace, ceiling)
    resource.setrlimit(kind, (min(most, hard), hard))


# ---- the system call filter --------------------------------------------------------------------------------

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NUMBERS: dict[str, dict[str, int]] = {
    name: {"x86_64": x86, "aarch64": arm}
    for name, x86, arm in (
        ("ptrace", 101, 117), ("process_vm_readv", 310, 270), ("process_vm_writev", 311, 271), ("kcmp", 312, 272),
        ("mount", 165, 40), ("umount2", 166, 39), ("pivot_root", 155, 41), ("chroot", 161, 51), ("unshare", 272, 97),
        ("setns", 308, 268), ("open_tree", 428, 428), ("move_mount", 429, 429), ("fsopen", 430, 430),
        ("fsmount", 432, 432), ("mount_setattr", 442, 442), ("keyctl", 250, 219), ("add_key", 248, 217),
        ("request_key", 249, 218), ("bpf", 321, 280), ("perf_event_open", 298, 241), ("userfaultfd", 323, 282),
        ("io_uring_setup", 425, 425), ("io_uring_enter", 426, 426), ("io_uring_register", 427, 427),
        ("memfd_create", 319, 279), ("memfd_secret", 447, 447), ("shmget", 29, 194), ("semget", 64, 190),
        ("msgget", 68, 186), ("mq_open", 240, 180), ("pidfd_getfd", 438, 438), ("rt_sigqueueinfo", 129, 138),
        ("rt_tgsigqueueinfo", 297, 240), ("pidfd_send_signal", 424, 424), ("tkill", 200, 130), ("prlimit64", 302, 261),
        ("kill", 62, 129), ("tgkill", 234, 131), ("socket", 41, 198), ("clone", 56, 220), ("clone3", 435, 435),
    )
}  # fmt: skip
_BY_ARGUMENT = ("tkill", "prlimit64", "kill", "tgkill", "socket", "clone", "clone3")
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE, _UNKNOWN, _KILL = 0x7FFF0000, 0x50001, 0x50026, 0x80000000  # errno EPERM and ENOSYS in the middle two
_OFFSET_ARCH, _OFFSET_FIRST = 4, 16


def has_filter() -> bool:
    """Whether there is a filter for this machine."""
    return bool(_machine())


@functools.cache
def _machine() -> str:
    return platform.machine() if platform.machine() in _ARCHITECTURES else ""


@functools.cache
def _filter(level: str, pid: int) -> tuple[bytes, object]:
    """A `struct sock_fprog`, and the classic BPF program of 8 bytes an instruction that it points to."""
    machine = _machine()
    code = [(_LOAD, 0, 0, _OFFSET_ARCH), (_EQUAL, 1, 0, _ARCHITECTURES[machine]), (_RETURN, 0, 0, _KILL)]
    code += [(_LOAD, 0, 0, 0)]
    if machine == "x86_64":  # the x32 way to the same system calls
        code += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _REFUSE)]
    for name, numbers in _NUMBERS.items():
        if name not in _BY_ARGUMENT:
            code += [(_EQUAL, 0, 1, numbers[machine]), (_RETURN, 0, 0, _REFUSE)]
    for name, rule in _rules(level, pid):
        code += [(_EQUAL, 0, len(rule), _NUMBERS[name][machine]), *rule]
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in [*code, (_RETURN, 0, 0, _ALLOW)])
    buffer = ctypes.create_string_buffer(packed, len(packed))
    return struct.pack("=HxxxxxxQ", len(packed) // 8, ctypes.addressof(buffer)), buffer


def _rules(level: str, pid: int) -> Iterator[tuple[str, list[tuple[int, int, int, int]]]]:
    """(system call, instructions that decide by its first argument)."""
    first, allow, refuse = (_LOAD, 0, 0, _OFFSET_FIRST), (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)
    yield "clone", [first, (_ANY_BIT, 0, 1, _ANY_NEW), refuse, allow]
    yield "clone3", [(_RETURN, 0, 0, _UNKNOWN)]  # its arguments lie in memory; libraries fall back to clone
    if level not in NAMESPACED:
        yield "socket", [first, (_EQUAL, 1, 0, socket.AF_UNIX), refuse, allow]
    if level == "process":
        yield "tkill", [refuse]
        for name in ("kill", "tgkill", "prlimit64"):  # itself and what it leads
            yield name, [first, (_EQUAL, 2, 0, 0), (_EQUAL, 1, 0, pid), refuse, allow]
