"""Whether the forward pass that is trained is the model's own: asked once, before anything is trained or scored.

    ours    rows as in training (packed or padded, the chosen attention), train mode, log-probs through PolicyModule
    plain   `model(input_ids).logits`, eager attention, eval mode, every sequence alone

On a few random sequences, one longer than the sliding windows where that is affordable; in float32, where a fault
stands out, and on a GPU also in the trainer's own type, since other kernels compute that. Compared is the mean over a
sequence's tokens: a router's near-tie moves single tokens, whatever is wrong with a row moves all behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from transformers import PreTrainedModel

from ringrl.algo.pack import TokenSequence, pack
from ringrl.config.sections import Trainer
from ringrl.errors import DataError
from ringrl.models.families import max_positions
from ringrl.policy.forward import PolicyModule, to_device

LENGTHS = (33, 23, 17)  # tokens
WINDOW_MOST = 1024  # tokens; eager attention to longer windows would cost more than the check is worth
WORK_MOST = 5e12  # parameters times tokens of the longest sequence, on a CPU
FLOAT32_MOST = 2_000_000_000  # parameters; if there are more, and no room on a GPU, they are compared as they are
LIMIT = 2e-4  # nats, in float32
# what a family raises that wants other arguments than an attention takes, or has no such attention
UNFIT = (AssertionError, AttributeError, DataError, IndexError, KeyError, TypeError, ValueError)
ROUNDINGS = 32  # in other types the limit is this many units in the last place of 1


def check_forward(module: PolicyModule, trainer: Trainer, path: str) -> float:
    """The largest mean gap between ours and plain, in nats; not finite when the model's own log-probs are not.

    Args:
        module: whole, neither sharded nor in an engine.
        path: where it was loaded from.

    Raises:
        DataError: they differ; it names what to set.
    """
    gap = _check(module, trainer, path, True)
    if torch.cuda.is_available() and module.lm.dtype != torch.float32:
        _check(module, trainer, path, False)
    return gap


def _check(module: PolicyModule, trainer: Trainer, path: str, upcast: bool) -> float:
    lm, training = module.lm, module.training
    # torch's generator is left alone: a thread that samples may be drawing from it
    with torch.no_grad(), _placed(module, trainer.attention, upcast) as attention:
        limit = LIMIT if lm.dtype == torch.float32 else ROUNDINGS * torch.finfo(lm.dtype).eps
        ids = sequences(module)
        for _ in range(2):  # a router's near-tie in float32 is rare, and another for other tokens rarer
            lm.set_attn_implementation("eager")
            plain = plain_logprobs(lm, ids, module.temperature)
            gap, failure = _gap(module, attention, True, trainer.packing and module.packs, ids, plain)
            if gap <= limit or not all(torch.isfinite(p).all() for p in plain):
                break
            ids = sequences(module, seed=1)
        else:
            gaps = f"log-probs of training differ from the model's own by {gap:.2g} nats, expected at most {limit:.2g}"
            raise DataError(f"{path}: model_type {lm.config.model_type}: {failure or gaps}: "
                            f"{_cause(module, trainer, attention, ids, plain, limit)}")  # fmt: skip
    module.train(training)
    return gap


def sequences(module: PolicyModule, seed: int = 0) -> list[list[int]]:
    """Random token ids, the first longer than the model's windows if they are short enough."""
    config = module.config.get_text_config()
    window = getattr(config, "sliding_window", None) or 0
    affordable = WINDOW_MOST
    if module.lm.device.type == "cpu":
        affordable = min(affordable, int(WORK_MOST / module.lm.num_parameters()))
    longest = LENGTHS[0] + (window if window <= affordable else 0)
    most = max_positions(module.config.to_dict()) or longest
    draw = torch.Generator().manual_seed(seed)
    lengths = [min(n, most) for n in (longest, *LENGTHS[1:])]
    return [torch.randint(config.vocab_size, (n,), generator=draw).tolist() for n in lengths]


def plain_logprobs(lm: PreTrainedModel, ids: Sequence[list[int]], temperature: float = 1.0) -> list[torch.Tensor]:
    """[n - 1] float32 per sequence, by the model itself in eval mode."""
    lm.eval()
    found = []
    for sequence in ids:
        tokens = torch.tensor([sequence], device=lm.device)
        logits = lm(input_ids=tokens, use_cache=False).logits[0, :-1].float() / temperature
        found.append(logits.log_softmax(-1).gather(-1, tokens[0, 1:, None]).squeeze(-1))
    return found


def own_logprobs(module: PolicyModule, ids: Sequence[list[int]], packed: bool) -> list[torch.Tensor]:
    """[n - 1] float32 per sequence, as in training."""
    whole = [TokenSequence(np.array(s), np.arange(len(s)) > 0, 1.0, float(i + 1)) for i, s in enumerate(ids)]
    [[row]] = pack(whole, 1, 1 << 30, packed)
    mb = to_device(row, module.lm.device)
    logprobs, owner = module(mb).logprobs, mb.advantages[mb.trained]  # an advantage is the number of its sequence
    return [logprobs[owner == i + 1] for i in range(len(ids))]


def largest(ours: Sequence[torch.Tensor], plain: Sequence[torch.Tensor]) -> float:
    """The mean absolute difference of the sequence where that is largest."""
    return max(float((a - b).abs().mean()) for a, b in zip(ours, plain, strict=True))


@contextmanager
def _placed(module: PolicyModule, attention: str, upcast: bool) -> Iterator[str]:
    """The model where it can be run, with `upcast` in float32 if that can be afforded; yields the attention that it has
    there."""
    lm, home, wanted = module.lm, module.lm.device, attention
    size = sum(p.nbytes for p in module.parameters())
    room = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
    flash = attention.startswith("flash")  # whose kernels know half precision only, and GPUs
    upcast = upcast and not flash and (lm.num_parameters() <= FLOAT32_MOST or room > 3.2 * size)
    if room > (3.2 if upcast else 1.2) * size:
        module.to("cuda")
    elif flash and home.type == "cpu":
        attention = "packed"
        lm.set_attn_implementation(attention)
    tensors = [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point() and upcast]
    before = [t.data for t in tensors]
    for t in tensors:
        t.data = t.data.float()
    try:
        yield attention
    finally:
        for t, data in zip(tensors, before, strict=True):
            t.data = data
        module.to(home)
        lm.set_attn_implementation(wanted)


def _gap(
    module: PolicyModule, attention: str, train: bool, packed: bool, ids: Sequence[list[int]],
    plain: Sequence[torch.Tensor],
) -> tuple[float, str]:  # fmt: skip
    """(ours against plain; why there is nothing to compare, with a gap that is infinite)."""
    try:
        module.lm.set_attn_implementation(attention)
        return largest(own_logprobs(module.train(train), ids, packed), plain), ""
    except UNFIT as e:
        return math.inf, f"the forward of training fails ({type(e).__name__}: {' '.join(str(e).split())[:120]})"


def _cause(
    module: PolicyModule, trainer: Trainer, attention: str, ids: Sequence[list[int]], plain: Sequence[torch.Tensor],
    limit: float,
) -> str:  # fmt: skip
    """What makes the difference, found by leaving it out."""
    packed = trainer.packing and module.packs

    def agrees(train: bool, pack_rows: bool, name: str) -> bool:
        return _gap(module, name, train, pack_rows, ids, plain)[0] <= limit

    if agrees(False, packed, attention):
        noise = [k for k, v in module.config.to_dict().items() if ("drop" in k or "jitter" in k) and v]
        return f"they agree in eval mode, so noise is left on in training; set {', '.join(noise)} to 0 in config.json"
    if packed and agrees(True, False, attention):
        return "sequences of a packed row see each other; set trainer.packing=false"
    for other in ("packed", "sdpa"):
        if other != attention and agrees(True, packed, other):
            return f"trainer.attention={attention} does not do all that this family needs; set {other}"
        if other != attention and packed and agrees(True, False, other):
            return f"set trainer.attention={other} and trainer.packing=false"
    return "neither packing nor attention nor noise makes the difference; ringrl cannot train this family"
