"""Which class of a Java program is run, and what its file is called: from the text, before it is compiled."""

from __future__ import annotations

import pytest

from ringrl.rewards.code import verify_code
from ringrl.sandbox.local import MAX_NAME, _java, _java_names, missing

READ = "System.out.println(2 * new java.util.Scanner(System.in).nextInt());"
MAIN = f"public static void main(String[] args) {{ {READ} }}"

# program: (public class, class to run)
NAMES = {
    f"class A {{ static class B {{}} }} class C {{}} public class D {{ {MAIN} }}": ("D", "D"),
    f"public class Main {{ enum E {{ A }} record P(int a) {{}} interface I {{ void f(); }} {MAIN} }}": ("Main", "Main"),
    f"// public class Foo {{\n/* class Bar {{ {MAIN} }} */ class Solution {{ {MAIN} }}": ("Main", "Solution"),
    f'class A {{ String s = "static void main("; }} class B {{ {MAIN} }}': ("Main", "B"),
    f"class A {{ static char c = '{{', d = '\\''; {MAIN} }}": ("Main", "A"),
    f'class A {{ static String s = """\n class X {{ "quoted" }}\n """; {MAIN} }}': ("Main", "A"),
    f"package com.example . app;\nimport java.util.*;\npublic class A {{ {MAIN} }}": ("A", "com.example.app.A"),
    f"public final class Answer {{ {MAIN} }}": ("Answer", "Answer"),
    "class Main { public static final void main(final String... a) { } }": ("Main", "Main"),
    "class Main { static public synchronized void\nmain (String a[]) { } }": ("Main", "Main"),
    f"class Node<T extends Comparable<T>> {{ T v; }} class Run<T> {{ {MAIN} }}": ("Main", "Run"),
    f"public class Outer {{ static class Inner {{ {MAIN} }} }}": ("Outer", "Outer$Inner"),
    f"class A {{ {MAIN} }} public class B {{ {MAIN} }}": ("B", "B"),
    f"interface A {{ {MAIN} }} enum B {{ X; }}": ("Main", "A"),
    f"class A {{ static Class<?> k = A.class; static Runnable r = () -> {{ int a = 0; }}; {MAIN} }}": ("Main", "A"),
    f"class A {{ static Object o = new Object() {{ void f() {{ int b; }} }}; {MAIN} }}": ("Main", "A"),
}  # fmt: skip


@pytest.mark.parametrize("program", NAMES)
def test_names(program: str):
    assert _java_names(program) == NAMES[program]


@pytest.mark.slow
@pytest.mark.skipif(bool(missing("java")), reason="Java is not installed")
@pytest.mark.parametrize("program", [p for p in NAMES if READ in p])
def test_they_compile_and_run(program: str):
    reference = {"tests": [{"input": "2\n", "output": "4\n"}], "language": "java"}
    for code, kind in ((program, "pass"), (program.replace("2 *", "3 *"), "fail")):
        verdict = verify_code(f"```java\n{code}\n```", reference, total_s=120.0)
        assert verdict.kind == kind, verdict


@pytest.mark.parametrize("count", [300, 5000, 100_000])
def test_no_name_is_too_long_for_a_request(count: int):
    for program in (f"public class {'A' * count} {{ {MAIN} }}", f"package {'a.' * count}b; class A {{ {MAIN} }}"):
        source, command, _, job = _java(program)
        assert max(map(len, [source, *command, *job.command])) < 2 * MAX_NAME
