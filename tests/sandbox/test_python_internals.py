"""The end of a forked interpreter, against the Python that is running."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, sys
from ringrl.sandbox.python_internals import finish
if os.fork():
    print(os.waitstatus_to_exitcode(os.wait()[1]))
else:
    import atexit, threading, time
    atexit.register(print, "exit handler")
    threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
    print("end")
    finish()
    os._exit(7)
"""


def test_threads_are_waited_for_then_exit_handlers_run_and_output_is_written() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split("\n") == ["end", "thread", "exit handler", "7", ""]
