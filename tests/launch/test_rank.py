"""What a rank makes of the launcher's specification."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringrl.config.sections import Rollout
from ringrl.errors import ChildDied
from ringrl.launch.rank import Context
from ringrl.run import Progress, Run


def test_a_worker_that_never_comes_is_waited_for_as_long_as_configured(tmp_path: Path):
    spec = {
        "engine": "vllm",
        "addresses": [str(tmp_path / "address")],
        "authkey": "00",
        "restarts": False,
        "meeting": "",
    }
    context = Context(Run(tmp_path), Progress(None), spec)
    with pytest.raises(ChildDied, match=r"worker 0 at .*address did not start within 0\.1 s"):
        context.rollout_engine("model", Rollout(start_deadline_s=0.1))
