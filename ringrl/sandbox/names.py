"""What Python programs find imported, as on LeetCode and LiveCodeBench: in every mode, here and on a service."""

from __future__ import annotations

STARRED = ("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics",
           "itertools", "functools", "operator", "io", "sys", "json", "typing", "builtins")  # fmt: skip
# the modules last, so that `datetime` is one; `builtins` after `operator` and `math`, whose `pow` takes two arguments
TEXT = (
    "".join(f"from {name} import *\n" for name in STARRED)
    + f"import {', '.join(name for name in STARRED if name != 'builtins')}\n"
    + """
class ListNode:
    def __init__(self, val=0, next=None):
        self.val, self.next = val, next

class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val, self.left, self.right = val, left, right
"""
)
