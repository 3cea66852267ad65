"""What a stage samples from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from ringrl.config.commands import RLConfig
from ringrl.errors import DataError
from ringrl.rl.sampler import Sampler
from tests.conftest import Inputs, rl_config


def test_a_batch_never_has_a_problem_twice_because_there_are_too_few(inputs: Inputs, tmp_path: Path) -> None:
    """48 rows of math and 2 of code: together as many as a batch of 50, one more is refused."""
    sources = [inputs.source("rl_math"), inputs.source("rl_code", limit=2)]
    nothing: Any = None  # the context is for sampling

    def sampler(prompts: int) -> Sampler:
        raw = rl_config(inputs, tmp_path / "run")
        raw["stages"][0] |= {"data": sources, "prompts": prompts, "max_total_tokens": 400}
        return Sampler(nothing, RLConfig.model_validate(raw), AutoTokenizer.from_pretrained(inputs.model))

    assert len({prompt.id for prompt in sampler(50).streams[0].take(50)}) == 50
    files = f"{inputs.data('rl_math')}, {inputs.data('rl_code')}"
    with pytest.raises(DataError, match=rf"^stages\.0\.prompts: got 51, expected at most 50, the problems in {files}$"):
        sampler(51)
