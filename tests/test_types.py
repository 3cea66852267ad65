"""Records with arrays: made from any numbers, read-only, and equal by value."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from ringrl.types import Completion, Prompt, Sample, all_of

PROMPT = Prompt("p", "math", (1, 2), {"answer": "3"})
COMPLETION = Completion([5, 6, 7], np.array([-0.5, -1.5, 0.0]), "stop", 0)


def test_numbers_per_token_take_four_bytes_and_cannot_be_changed() -> None:
    assert (COMPLETION.token_ids.dtype, COMPLETION.logprobs.dtype) == (np.int32, np.float32)
    with pytest.raises(ValueError, match="read-only"):
        COMPLETION.token_ids[0] = 1
    mine = np.array([5, 6, 7], np.int32)
    Completion(mine, COMPLETION.logprobs, "stop", 0)
    mine[0] = 1  # whoever gives an array keeps one that can be written


def test_records_are_equal_by_value() -> None:
    again = Completion((5, 6, 7), (-0.5, -1.5, 0.0), "stop", 0)
    assert COMPLETION == again == pickle.loads(pickle.dumps(again))
    assert replace(again, token_ids=(5, 6, 8)) != again
    assert replace(again, token_ids=(5, 6), logprobs=(0.0, 0.0)) != again
    assert replace(again, finish="length") != again
    assert again != PROMPT
    assert Sample(PROMPT, again, 1.0, 0.5, all_of(3)) == Sample(PROMPT, COMPLETION, 1.0, 0.5, (True,) * 3)


def test_a_mask_counts_what_is_trained() -> None:
    assert Sample(PROMPT, COMPLETION, 1.0, 0.5, (True, False, True)).num_trained == 2
    assert all_of(10**9).strides == (0,)  # in no memory
