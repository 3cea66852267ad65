"""Programs in Python, C++ and Java on this machine: compiled once, run in a sandbox."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ringrl.sandbox import values
from ringrl.sandbox.box import Execution, Job, Limits, Sandbox, SandboxError, check

T = TypeVar("T")
LANGUAGES = {"python": (), "cpp": ("g++",), "java": ("javac", "java")}  # language -> programs it needs
BUILD = Limits(wall_s=30.0, cpu_s=20, memory_bytes=2 << 30, output_bytes=64 << 20, open_files=256)
_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-XX:CompressedClassSpaceSize=64m")
BOMB_CPU_S = 10.0  # CPU time after which a compiler that was kept waiting is the program's fault all the same
MAX_NAME = 250  # characters of the name of a Java class
_SMALLEST = {"python": "", "cpp": "int main() {}", "java": "class A { public static void main(String[] a) {} }"}
_JAVA = re.compile(  # what is no code, and the words and braces that say where `main` stands
    r'//[^\n]*|/\*.*?\*/|"""(?:\\.|.)*?"""|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
    r"|(?P<brace>[{}])|\bpackage\s+(?P<package>[\w.\s]+);"
    r"|(?P<public>\bpublic\s+(?:(?:final|abstract|strictfp|sealed|non-sealed)\s+)*)?"
    r"(?<!\.)\b(?:class|interface|enum|record)\s+(?P<type>\w+)"
    r"|\bstatic\b[\w\s]*\bvoid\s+(?P<main>main)\s*\(",
    re.DOTALL,
)


def missing(language: str) -> list[str]:
    """The programs that a language needs and this machine does not have."""
    return [name for name in LANGUAGES[language] if shutil.which(name) is None]


class Local:
    """Executes programs in one sandbox, and trusted tests of them in a second one; starts both when they are needed.

    Args:
        level: one of `kernel.LEVELS`; "" for the best that this machine grants.
    """

    def __init__(self, level: str = "") -> None:
        self.sandbox, self._trusted = Sandbox(level), Sandbox(level, packages=True)
        self._proved: set[str] = set()  # languages whose compiler has worked
        self._source = ("", "")  # the last language and code that were compiled
        self._built: Job | Execution  # the job that runs it, or why there is none

    def execute(self, language: str, code: str, stdin: str, limits: Limits) -> Execution:
        """One run of a program; it is compiled, in time of its own, if it is not the one of the last call.

        Raises:
            SandboxError: the sandbox failed, or a compiler is not there.
        """
        if language == "python":
            return self._run(Job("script", code, stdin), limits)
        self.build(language, code, BUILD.wall_s)
        if isinstance(self._built, Execution):
            return self._built
        command = tuple(part.format(heap=limits.memory_bytes // 4 * 3) for part in self._built.command)
        return self._run(replace(self._built, stdin=stdin, command=command), limits)

    def build(self, language: str, code: str, wall_s: float, patience_s: float = BUILD.patience_s) -> str:
        """Compiles a program for calls of `execute` that follow, unless it is compiled. Raises as `execute`.

        Returns "", or the outcome of all its runs if it does not compile.
        """
        if language == "python":
            return ""
        if self._source != (language, code):
            self._source, self._built, slow = ("", ""), *self._build(language, code, wall_s, patience_s)
            if not slow:  # what failed for want of time may do better the next time
                self._source = (language, code)
        return self._built.outcome if isinstance(self._built, Execution) else ""

    def call(self, code: str, entry: str, args: list[Any], limits: Limits) -> Execution:
        """One call of a function, or of a method of the class `Solution`, of a Python program.

        Its result, as plain data, is the report. Raises SandboxError.
        """
        request = json.dumps({"entry": entry, "args": values.encode(args)})
        return self._run(Job("call", code, request), limits)

    def check(self, code: str, texts: Sequence[str], entry: str, limits: Limits) -> str:
        """The outcome of Python tests of a Python program. Raises as `box.check`."""
        return self._blamed(lambda: check(self.sandbox, self._trusted, code, texts, entry, limits), "runtime")

    def trusted(self, code: str, stdin: str, limits: Limits) -> Execution:
        """One run of a Python program that may know what is expected. Raises SandboxError."""
        return self._trusted.run(Job("script", code, stdin), limits)

    def _run(self, job: Job, limits: Limits) -> Execution:
        return self._blamed(lambda: self.sandbox.run(job, limits), Execution("runtime", "", "", b""))

    def _blamed(self, run: Callable[[], T], failed: T) -> T:
        """What `run` returns, or `failed` if its program ends two hosts and an honest one none: a program that is an
        error of ours would be left out of what is learnt from. Raises SandboxError if an honest one does, too."""
        for _ in range(2):
            try:
                return run()
            except SandboxError as error:
                lost = str(error)
        if self.sandbox.run(Job("script", "print(1)"), Limits()).stdout != "1\n":
            raise SandboxError(lost)
        return failed

    def problem(self, language: str) -> str:
        """Why programs in a language do not run here, or ""."""
        try:
            execution = self.execute(language, _SMALLEST[language], "", BUILD)
        except SandboxError as error:
            return str(error)
        return "" if execution.outcome == "ok" else f"{execution.outcome} {execution.stderr.strip()[-200:]}"

    def close(self) -> None:
        self.sandbox.close()
        self._trusted.close()

    def _build(self, language: str, code: str, wall_s: float, patience_s: float) -> tuple[Job | Execution, bool]:
        """The job that runs the program, or why there is none, and whether that is for want of time."""
        if absent := missing(language):
            raise SandboxError(f"{language} needs {' and '.join(absent)}, which this machine does not have")
        execution, job = self._compile(language, code, replace(BUILD, wall_s=wall_s, patience_s=patience_s))
        if execution.outcome == "ok":
            self._proved.add(language)
            return replace(job, program=execution.report), False
        if language not in self._proved:  # is it the program, or the compiler?
            proof, _ = self._compile(language, _SMALLEST[language], BUILD)
            if proof.outcome != "ok":
                raise SandboxError(f"{language} does not compile here: {proof.outcome} {proof.stderr.strip()[-300:]}")
            self._proved.add(language)
        slow = execution.outcome == "timeout"
        if slow and execution.starved_s > wall_s / 2 and execution.cpu_s < BOMB_CPU_S:
            raise SandboxError(f"{language}: this machine is too busy to compile within {wall_s:.0f} s")
        return replace(execution, outcome="timeout" if slow else "compile"), slow

    def _compile(self, language: str, code: str, limits: Limits) -> tuple[Execution, Job]:
        """The compiler's execution, and the job that runs its result."""
        source, command, result, job = (_cpp if language == "cpp" else _java)(code)
        request = json.dumps({"source": source, "command": command, "result": result})
        jvm = tuple(command) if language == "java" else ()
        return self.sandbox.run(Job("build", code, request, command=jvm), limits), job


def _cpp(code: str) -> tuple[str, list[str], str, Job]:
    command = [_path("g++"), "-O2", "-std=c++20", "-DONLINE_JUDGE", "-o", "answer", "answer.cpp"]
    return "answer.cpp", command, "answer", Job("native", b"")


def _java(code: str) -> tuple[str, list[str], str, Job]:
    """A public class gives the file its name; the class around `main`, the public one first, is run."""
    public, main = (name[:MAX_NAME] for name in _java_names(code))  # no longer one can be a file's, or run
    source = f"{public}.java"
    options = [f"-J{option}" for option in ("-Xmx768m", *_JVM)]
    command = [_path("javac"), *options, "-nowarn", "-encoding", "UTF-8", "-d", "classes", source]
    run = (_path("java"), "-Xmx{heap}", "-Xss64m", *_JVM, "-DONLINE_JUDGE=true", "-cp", "answer.jar", main)
    return source, command, "answer.jar", Job("java", b"", command=run)


def _java_names(code: str) -> tuple[str, str]:
    """(public class, class to run), from the braces around `main`; comments and texts are no code."""
    package, public, next_type = "", "Main", ""
    around: list[str] = []  # the type or "" that each open brace belongs to
    mains: list[str] = []
    for token in _JAVA.finditer(code):
        if token["package"]:
            package = "".join(token["package"].split()) + "."
        elif token["type"]:
            next_type = token["type"]
            if token["public"] and not around:
                public = next_type
        elif token["brace"] == "{":
            around.append(next_type)
            next_type = ""
        elif token["brace"] and around:
            around.pop()
        elif token["main"] and all(around):
            mains.append("$".join(around))
    return public, package + (public if public in mains else (mains or [public])[0])


def _path(name: str) -> str:
    path = shutil.which(name)
    assert path
    return path
