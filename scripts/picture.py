"""The headline picture of a pipeline run, for the README: python scripts/picture.py runs/demo docs/demo.png"""

from __future__ import annotations

import sys
from pathlib import Path

from ringrl.report.runs import write_picture

run, out = map(Path, sys.argv[1:])
out.parent.mkdir(exist_ok=True)
print(write_picture(run, out))
