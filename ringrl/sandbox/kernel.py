"""Isolation by Linux, best first, through raw system calls: namespaces, capabilities, system call filter, limits.

| level           | needs                                | what holds besides limits and the system call filter      |
|-----------------|--------------------------------------|------------------------------------------------------------|
| user-namespaces | a kernel that grants them            | own processes, network, IPC, users; read-only root, tmpfs |
| namespaces      | root with CAP_SYS_ADMIN              | the same under an unprivileged uid, without own users     |
| uid             | root                                 | an unprivileged uid: not the user's processes and files   |
| process         | nothing                              | a directory of its own: no security boundary              |

`ringrl.sandbox.filter` has the system calls that programs may make (x86-64 and ARM64): in the two lower levels no
sockets that reach anything, and in the last one no signals to other processes.

Host and programs are different users, except where a user who is not root starts them: there is only one id to be had.
Where that is so in the namespaces, the host is still out of reach: as their first process no signal is delivered to it,
nobody looks into it, and the filter lets programs change limits and priorities of themselves only.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import stat
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ringrl.sandbox import filter as system_calls

LEVELS = ("user-namespaces", "namespaces", "uid", "process")
NAMESPACED = LEVELS[:2]
FIRST_UID, UIDS = 60_001, 4_000  # each host that is root takes one of them for its programs
TMP_BYTES, TMP_FILES = 64 << 20, 4096  # size of a program's own /tmp
STACK_BYTES = 64 << 20

_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
    0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)  # fmt: skip
_RDONLY, _NOSUID, _NODEV, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_DETACH = 2
_STATVFS_TO_MOUNT = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}  # flags a remount must not lose
_SET_PDEATHSIG, _SET_DUMPABLE, _SET_SECCOMP, _SET_SUBREAPER, _SET_NO_NEW_PRIVS = 1, 4, 22, 36, 38
_CAPABILITY_VERSION = 0x20080522
_CALLS: dict[str, int | tuple[int, int]] = {  # the same on all machines, or on x86-64 and ARM64
    "pivot_root": (155, 41), "landlock_create_ruleset": 444, "landlock_add_rule": 445,
    "landlock_restrict_self": 446}  # fmt: skip
_READ_FILE = 4  # Landlock's right to open a file for reading
_OWN_FILES = ("cmdline", "environ", "maps", "mem", "stat", "statm", "status")  # of /proc/PID
_DEVICES = ("null", "zero", "full", "random", "urandom")
_libc = ctypes.CDLL(None, use_errno=True)


def _call(what: str, *args: object) -> None:
    if getattr(_libc, what)(*args) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def _syscall(name: str, *args: object) -> int:
    number = _CALLS[name]
    result = _libc.syscall(number if isinstance(number, int) else number[os.uname().machine == "aarch64"], *args)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result


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


def package_folders(packages: Sequence[str]) -> list[str]:
    """Where folders of Python packages are in the namespaces: an environment in /tmp would be hidden there."""
    return [f"/packages/{i}" for i in range(len(packages))]


def enter(level: str, root: str, readable: Sequence[str], packages: Sequence[str]) -> Place:
    """Brings this process to `level`; `root` is an empty directory of ours, `readable` and `packages`, which are at
    `package_folders` then, what programs may read.

    For the namespaces, the caller must then fork: its child is the first process of the new ones, and calls `settle`.

    Raises:
        OSError: the kernel refuses, or this user may not.
    """
    if level in NAMESPACED and os.__file__.startswith("/tmp/"):
        raise OSError("the interpreter lies in /tmp, which each program has for itself: its library would be missing")
    me = os.getuid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # with Python's handler it would reach even a first process
    if system_calls.machine():
        system_calls.assembled(level in NAMESPACED, 0)  # for all programs to come
    if level in ("namespaces", "uid") and me != 0:
        raise OSError("needs root")
    if level == "process":
        return Place(level, me, os.path.join(root, "cwd"))
    uid, host = _free_uids() if me == 0 else (me, me)
    if level == "uid":
        _must_read(uid, os.__file__)
        os.chmod(root, 0o711)
        return Place(level, uid, os.path.join(root, "cwd"))
    if me == 0:  # bound while we may still read everything
        _call("unshare", _NEWNS)
        _build_root(root, readable, packages, uid)
    rest = _NEWPID | _NEWIPC | _NEWUTS | _NEWNET | _NEWCGROUP
    if level == "namespaces":
        _call("unshare", rest)
    elif me == 0:
        with _mapped_by_root(host, uid):
            become(host)
            set_dumpable(True)  # else /proc/self belongs to root
            _call("unshare", _NEWUSER | _NEWNS | rest)
    else:
        gid = os.getgid()
        _call("unshare", _NEWUSER | _NEWNS | rest)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{me} {me} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        _build_root(root, readable, packages, uid)
    _call("sethostname", b"sandbox", 7)
    return Place(level, uid, "/tmp")


@contextlib.contextmanager
def _mapped_by_root(host: int, uid: int) -> Iterator[None]:
    """In the block this process moves to a new user namespace; there it is user 0 afterwards, and programs are `uid`.

    Only a process outside may give a namespace two users, so one stays behind for it.
    """
    me, (ready, moved) = os.getpid(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(moved)
        code = 1
        with suppress(OSError):
            if os.read(ready, 1):
                for name in ("uid_map", "gid_map"):
                    with open(f"/proc/{me}/{name}", "w") as file:
                        file.write(f"0 {host} 1\n{uid} {uid} 1\n")
                code = 0
        os._exit(code)
    os.close(ready)
    try:
        yield
        os.write(moved, b"1")
    finally:
        os.close(moved)
        failed = os.waitpid(pid, 0)[1]
    if failed:
        raise OSError("no two users can be mapped into a user namespace")


def settle() -> str:
    """In the first process of the new namespaces: its own /proc. Returns what had to be left out, or ""."""
    missing = _proc()
    _blank_command_line()
    set_dumpable(False)
    return ", ".join(filter(None, [missing, "" if _landlock() else "no Landlock"]))


def _proc() -> str:
    """Mounts a /proc with nothing of the machine, or what this kernel has; returns what had to be left out, or ""."""
    try:
        _mount("proc", "/proc", "proc", _NOSUID | _NODEV)
    except OSError as error:  # part of the outer /proc is hidden, as in some containers
        _mount("none", "/proc", "tmpfs", _RDONLY)
        return f"no /proc ({error.strerror})"
    _counters.append(os.open("/proc/loadavg", os.O_RDONLY | os.O_CLOEXEC))
    with suppress(OSError):  # an old kernel
        _mount("proc", "/proc", "proc", _NOSUID | _NODEV, "subset=pid")
    return ""


_counters: list[int] = []  # /proc/loadavg, kept open


def last_pid() -> int:
    """The last process or thread id given in this namespace, 0 if it cannot be known."""
    return int(os.pread(_counters[0], 200, 0).split()[-1]) if _counters else 0


def _blank_command_line() -> None:
    """Forgets the arguments of this process, which name paths of the machine."""
    with suppress(OSError, ValueError), open("/proc/self/cmdline", "rb") as file:
        length = len(file.read())
        first = ctypes.c_void_p.in_dll(_libc, "program_invocation_name").value
        if first:
            ctypes.memset(first, 0, length)


def _landlock() -> int:
    """The version of Landlock that the kernel has, 0 for none."""
    with suppress(OSError):
        return _syscall("landlock_create_ruleset", None, ctypes.c_size_t(0), 1)
    return 0


def renew_tmp(first: bool) -> None:
    """An empty /tmp; what was in the old one is gone with it. Also for what programs put in System V IPC."""
    if not first:
        _call("umount2", b"/tmp", _DETACH)
    _mount("tmpfs", "/tmp", "tmpfs", _NOSUID | _NODEV, f"size={TMP_BYTES},nr_inodes={TMP_FILES},mode=1777")
    if not system_calls.machine() and not first:  # no filter for this machine, so there may be segments
        _call("unshare", _NEWIPC)


def _build_root(root: str, readable: Sequence[str], packages: Sequence[str], uid: int) -> None:
    """A file tree of what may be read and a few devices, all read-only, becomes this mount namespace's root."""
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
    for path, place in zip(packages, package_folders(packages), strict=True):
        _bind(path, root, _RDONLY | _NOSUID | _NODEV, place)
    os.chdir(root)
    _syscall("pivot_root", b".", b".")
    _call("umount2", b".", _DETACH)
    os.chdir("/")
    _mount("none", "/", flags=_REMOUNT | _BIND | _RDONLY | _NOSUID)


def _bind(path: str, root: str, flags: int, place: str = "") -> None:
    """`path` at the same place under `root`, or at another one; links stay links."""
    target = root + (place or path)
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


def _free_uids() -> tuple[int, int]:
    """Two user ids, for programs and their host, that no other host on this machine has until this process ends."""
    folder = _root_folder()
    for i in range(UIDS // 2):
        file = os.open(f"{folder}/{i}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            continue
        return FIRST_UID + 2 * i, FIRST_UID + 2 * i + 1  # the file stays open
    raise OSError(f"no free uid of {UIDS} from {FIRST_UID}")


def _root_folder() -> str:
    """A folder that only root may enter, for locks that no program can take."""
    for parent in ("/run", tempfile.gettempdir()):
        folder = os.path.join(parent, "ringrl-sandbox-uids")
        with suppress(OSError):
            with suppress(FileExistsError):
                os.mkdir(folder, 0o700)
            found = os.lstat(folder)
            if stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and not found.st_mode & 0o077:
                return folder
    raise OSError("no folder for the locks of user ids")


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
    if place.level in NAMESPACED and _landlock():
        _hide_proc()
    if system_calls.machine():
        reach = os.getpid() if place.level == "process" else 0
        program, _ = system_calls.assembled(place.level in NAMESPACED, reach)
        _call("prctl", _SET_SECCOMP, 2, program, 0, 0)


def _hide_proc() -> None:
    """Of /proc only files that tell nothing of the machine can be read: no mounts, no control groups."""
    rules = _syscall("landlock_create_ruleset", struct.pack("=Q", _READ_FILE), ctypes.c_size_t(8), 0)
    own = [f"/proc/{os.getpid()}/{name}" for name in _OWN_FILES]
    shown = [entry.path for entry in os.scandir("/") if entry.name != "proc" and not entry.is_symlink()]
    for path in [*shown, *own, "/proc/1/cmdline"]:
        with suppress(FileNotFoundError):
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            _syscall("landlock_add_rule", rules, 1, struct.pack("=Qi", _READ_FILE, fd), 0)
            os.close(fd)
    _syscall("landlock_restrict_self", rules, 0)
    os.close(rules)


def limit(kind: int, most: int, grace: int = 0) -> None:
    """Sets a resource limit, never above the one there is; `grace` is how much higher the hard one is."""
    ceiling = resource.getrlimit(kind)[1]
    hard = most + grace if ceiling == resource.RLIM_INFINITY else min(most + grace, ceiling)
    resource.setrlimit(kind, (min(most, hard), hard))
