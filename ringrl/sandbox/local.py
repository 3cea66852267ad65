"""Programs in Python, C++ and Java on this machine: compiled once, run in a sandbox."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ringrl.sandbox import values
from ringrl.sandbox.box import Execution, Job, Limits, Sandbox, SandboxError, check

LANGUAGES = {"python": (), "cpp": ("g++",), "java": ("javac", "java")}  # language -> programs it needs
BUILD = Limits(cpu_s=20, memory_bytes=2 << 30, output_bytes=64 << 20, open_files=256)
_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-XX:CompressedClassSpaceSize=64m")
_SMALLEST = {"python": "", "cpp": "int main() {}", "java": "class A { public static void main(String[] a) {} }"}
_CLASS = re.compile(r"\b(public\s+)?(?:(?:final|abstract|strictfp)\s+)*class\s+(\w+)")


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
        """One run of a program; it is compiled, in the same time, if it is not the one of the last call.

        Raises:
            SandboxError: the sandbox failed, or a compiler is not there.
        """
        if language == "python":
            return self.sandbox.run(Job("script", code, stdin), limits)
        deadline = time.monotonic() + limits.wall_s
        if self._source != (language, code):
            self._built = self._build(language, code, limits.wall_s)
            self._source = (language, code)
        if isinstance(self._built, Execution):
            return self._built
        command = tuple(part.format(heap=limits.memory_bytes // 4 * 3) for part in self._built.command)
        left = replace(limits, wall_s=max(deadline - time.monotonic(), 0.0))
        return self.sandbox.run(replace(self._built, stdin=stdin, command=command), left)

    def call(self, code: str, entry: str, args: list[Any], limits: Limits) -> Execution:
        """One call of a function, or of a method of the class `Solution`, of a Python program.

        Its result, as plain data, is the report. Raises SandboxError.
        """
        request = json.dumps({"entry": entry, "args": values.encode(args)})
        return self.sandbox.run(Job("call", code, request), limits)

    def check(self, code: str, texts: Sequence[str], entry: str, limits: Limits) -> str:
        """The outcome of Python tests of a Python program. Raises as `box.check`."""
        return check(self.sandbox, self._trusted, code, texts, entry, limits)

    def trusted(self, code: str, stdin: str, limits: Limits) -> Execution:
        """One run of a Python program that may know what is expected. Raises SandboxError."""
        return self._trusted.run(Job("script", code, stdin), limits)

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

    def _build(self, language: str, code: str, wall_s: float) -> Job | Execution:
        if absent := missing(language):
            raise SandboxError(f"{language} needs {' and '.join(absent)}, which this machine does not have")
        execution, job = self._compile(language, code, wall_s)
        if execution.outcome == "ok":
            self._proved.add(language)
            return replace(job, program=execution.report)
        if language not in self._proved:  # is it the program, or the compiler?
            proof, _ = self._compile(language, _SMALLEST[language], BUILD.wall_s)
            if proof.outcome != "ok":
                raise SandboxError(f"{language} does not compile here: {proof.outcome} {proof.stderr.strip()[-300:]}")
            self._proved.add(language)
        return replace(execution, outcome="compile")

    def _compile(self, language: str, code: str, wall_s: float) -> tuple[Execution, Job]:
        """The compiler's execution, and the job that runs its result."""
        source, command, result, job = (_cpp if language == "cpp" else _java)(code)
        request = json.dumps({"source": source, "command": command, "result": result})
        jvm = tuple(command) if language == "java" else ()
        return self.sandbox.run(Job("build", code, request, command=jvm), replace(BUILD, wall_s=wall_s)), job


def _cpp(code: str) -> tuple[str, list[str], str, Job]:
    command = [_path("g++"), "-O2", "-std=c++20", "-o", "answer", "answer.cpp"]
    return "answer.cpp", command, "answer", Job("native", b"")


def _java(code: str) -> tuple[str, list[str], str, Job]:
    """A public class gives the file its name; the last class before `main` is the one that is run."""
    classes = [(m.start(), bool(m[1]), m[2]) for m in _CLASS.finditer(code)]
    public = next((name for _, is_public, name in classes if is_public), "Main")
    start = code.find(" main(")
    main = next((name for at, _, name in reversed(classes) if at < start), public)
    source = f"{public}.java"
    options = [f"-J{option}" for option in ("-Xmx768m", *_JVM)]
    command = [_path("javac"), *options, "-nowarn", "-encoding", "UTF-8", "-d", "classes", source]
    run = (_path("java"), "-Xmx{heap}", "-Xss64m", *_JVM, "-cp", "answer.jar", main)
    return source, command, "answer.jar", Job("java", b"", command=run)


def _path(name: str) -> str:
    path = shutil.which(name)
    assert path
    return path
