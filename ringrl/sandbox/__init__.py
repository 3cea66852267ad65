"""Runs untrusted programs in what isolation the kernel offers, in Python, C++ and Java.

    box.Sandbox  ->  host.main, one warm process  ->  programs.run, a forked process per program
    (ours)           (holds no content)              (untrusted)

Invariants: what a program must not know never enters its sandbox; the verdict on it comes from outside, from its exit
status and output; nothing outlives it: no process, file, mount or shared-memory segment. The weaker levels of
`kernel.LEVELS` promise less, which `Sandbox.level` and `ringrl doctor` say.

Host and programs run without site-packages, so what they import is the standard library only; trusted tests may import
what is installed beside NumPy and pytest.
"""
