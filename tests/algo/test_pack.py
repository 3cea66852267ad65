"""Nothing about the layout changes the loss: not the row size, the ranks, the padding or the order.

The "model" is context-dependent, so that a token which sees a neighbouring sequence, or a wrong position, shows:
the hidden state is the sum of the embeddings of the sequence so far, and of the position's.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch

from ringrl.algo.budget import fill_budget, num_tokens, shuffled
from ringrl.algo.correction import correction
from ringrl.algo.loss import divisor, kl_terms, log_ratio, surrogate, token_weights
from ringrl.algo.pack import TokenSequence, lay_out, pack, sequence_of
from ringrl.types import Completion, MicroBatch, Prompt, Sample, all_of

VOCABULARY, WIDTH, LONGEST, PHI = 40, 6, 64, 145
LAYOUTS = [(ranks, rows, packed) for ranks in (1, 2, 3, 8) for rows in (1, 30, 64, 10_000) for packed in (True, False)]


def ragged(seed: int, count: int = 14) -> list[Sample]:
    rng = random.Random(seed)
    samples = []
    for i in range(count):
        prompt = tuple(rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 12)))
        n = rng.randint(1, 25)
        tokens = tuple(rng.randrange(VOCABULARY) for _ in range(n))
        completion = Completion(tokens, tuple(-3 * rng.random() for _ in tokens), "stop", 0)
        samples.append(Sample(Prompt(f"p{i}", "math", prompt, {}), completion, 1.0, rng.gauss(0, 1), all_of(n)))
    return samples


@dataclass
class TinyModel:
    embedding: torch.Tensor  # [V, H]
    position: torch.Tensor  # [P, H]
    head: torch.Tensor  # [V, H]

    @staticmethod
    def random(seed: int) -> TinyModel:
        g = torch.Generator().manual_seed(seed)
        sizes = [(VOCABULARY, WIDTH), (LONGEST, WIDTH), (VOCABULARY, WIDTH)]
        return TinyModel(*[0.3 * torch.randn(s, generator=g, dtype=torch.float64) for s in sizes])

    def logprobs(self, mb: MicroBatch) -> torch.Tensor:
        """[n] of the trained tokens, reading sequence boundaries and positions off the microbatch."""
        hidden = self.embedding[mb.inputs]
        if len(mb.starts):
            ends = [int(e) for e in mb.starts]
            parts = [hidden[0, a:b].cumsum(0) for a, b in pairwise(ends)]
            hidden = torch.cat(parts)[None]
        else:
            hidden = hidden.cumsum(1)
        hidden = hidden + self.position[mb.positions]
        logp = (hidden @ self.head.T).log_softmax(-1)
        return logp.gather(-1, mb.targets[..., None])[..., 0][mb.trained]


def loss_of_rows(
    rows: list[list[MicroBatch]], model: TinyModel, reference: TinyModel, level: str = "token", high: float = 9.0
) -> torch.Tensor:
    """`high` masks whole responses by their geometric mean; 9 masks none."""
    total = torch.zeros((), dtype=torch.float64)
    for mb in (mb for rank in rows for mb in rank):
        logp, m = model.logprobs(mb), mb.trained
        old, ref, segments = mb.sampler_logprobs[m].double(), reference.logprobs(mb), mb.segments[m]
        log_rho = log_ratio(logp, old, segments, level)
        terms = surrogate(log_rho, logp, mb.advantages[m], "ppo", 0.2, 0.2).surrogate
        c = correction("geometric", ref, old, segments, 0.0, high)
        total = total + (mb.weights[m] * (c * terms + 0.1 * kl_terms("k3", logp, ref, old))).sum()
    return total


def loss_by_hand(
    samples: list[Sample], weights: list[float], model: TinyModel, reference: TinyModel, level: str = "token"
) -> torch.Tensor:
    """Token by token, without microbatches."""

    def logprob(m: TinyModel, ids: tuple[int, ...], t: int) -> torch.Tensor:
        state = sum(m.embedding[i] for i in ids[:t]) + m.position[t - 1]
        return (m.head @ state).log_softmax(-1)[ids[t]]

    total = torch.zeros((), dtype=torch.float64)
    for s, w in zip(samples, weights, strict=True):
        ids = (*s.prompt.token_ids.tolist(), *s.completion.token_ids.tolist())
        at = [len(s.prompt.token_ids) + k for k in range(s.num_trained)]
        gaps = [logprob(model, ids, t) - s.completion.logprobs[k] for k, t in enumerate(at)]
        for k, t in enumerate(at):
            new, ref = logprob(model, ids, t), logprob(reference, ids, t)
            ratio = (gaps[k] if level == "token" else sum(gaps) / len(gaps)).exp()
            surrogate = -torch.minimum(ratio * s.advantage, ratio.clamp(0.8, 1.2) * s.advantage)
            total = total + w * (surrogate + 0.1 * ((ref - new).exp() - (ref - new) - 1))
    return total


def weights_of(samples: list[Sample], weight: str = "token", kind: str = "phi") -> list[float]:
    return token_weights(samples, weight, divisor(kind, samples, PHI, 0))


def strands_of(samples: list[Sample], weight: str = "token", kind: str = "phi") -> list[TokenSequence]:
    return [sequence_of(s, w) for s, w in zip(samples, weights_of(samples, weight, kind), strict=True)]


@pytest.fixture(scope="module")
def chosen() -> list[Sample]:
    samples = fill_budget(ragged(0), PHI)
    assert num_tokens(samples) == PHI
    assert samples[-1].num_trained < len(samples[-1].completion.token_ids)
    return samples


WEIGHTINGS = [("token", "phi"), ("response", "responses")]


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize(("weight", "kind"), WEIGHTINGS)
def test_the_loss_of_packed_rows_is_the_sum_over_tokens(chosen: list[Sample], weight: str, kind: str, level: str):
    """Rows hold float32 weights, advantages and log-probs."""
    model, reference = TinyModel.random(1), TinyModel.random(2)
    model.embedding.requires_grad_()
    expected = loss_by_hand(chosen, weights_of(chosen, weight, kind), model, reference, level)
    loss = loss_of_rows(pack(strands_of(chosen, weight, kind), 2, 64), model, reference, level)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-7)
    got, gradient = (torch.autograd.grad(value, model.embedding)[0] for value in (loss, expected))
    torch.testing.assert_close(got, gradient, rtol=1e-5, atol=1e-6 * float(gradient.abs().max()))


@pytest.mark.parametrize(("level", "high"), [("token", 9.0), ("sequence", 9.0), ("sequence_token", 0.12)])
@pytest.mark.parametrize(("weight", "kind"), WEIGHTINGS)
def test_loss_and_gradient_do_not_depend_on_the_layout(
    chosen: list[Sample], weight: str, kind: str, level: str, high: float
):
    model, reference = TinyModel.random(1), TinyModel.random(2)
    model.embedding.requires_grad_()

    def run(order: list[Sample], ranks: int, max_tokens: int, packed: bool) -> tuple[torch.Tensor, torch.Tensor]:
        rows = pack(strands_of(order, weight, kind), ranks, max_tokens, packed)
        loss = loss_of_rows(rows, model, reference, level, high)
        return loss, torch.autograd.grad(loss, model.embedding)[0]

    expected = run(chosen, 1, 10_000, True)
    assert float(expected[1].abs().max()) > 1e-3
    for i, layout in enumerate(LAYOUTS):
        torch.testing.assert_close(run(shuffled(chosen, i), *layout), expected, rtol=0, atol=1e-12)
    unmasked = float(loss_of_rows(pack(strands_of(chosen, weight, kind), 1, 64), model, reference, level).detach())
    assert (abs(unmasked - float(expected[0].detach())) > 1e-6) == (high < 9)


def test_with_a_constant_budget_a_response_adds_the_same_in_any_company(chosen: list[Sample]):
    """Divided by Φ and not by what is found: the loss of a batch is the sum of the losses of its halves."""
    model, reference = TinyModel.random(3), TinyModel.random(4)
    whole, first, second = (
        float(loss_of_rows(pack(strands_of(part), 2, 64), model, reference))
        for part in (chosen, chosen[:5], chosen[5:])
    )
    assert whole == pytest.approx(first + second, abs=1e-12)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_every_trained_token_appears_exactly_once_with_what_belongs_to_it(seed: int, packed: bool):
    rng, samples, unique = random.Random(seed), ragged(seed), 0
    renamed = []
    for s in samples:  # every token of the batch gets an id of its own
        p, t = len(s.prompt.token_ids), len(s.completion.token_ids)
        prompt = Prompt(s.prompt.id, "math", tuple(range(unique, unique + p)), {})
        completion = Completion(tuple(range(unique + p, unique + p + t)), s.completion.logprobs, "stop", 0)
        mask = [rng.random() < 0.7 for _ in range(t - 1)] + [True]  # as with tool output in between
        renamed.append(Sample(prompt, completion, s.reward, s.advantage, np.array(mask)))
        unique += p + t
    expected = [
        (s.completion.token_ids[k], len(s.prompt.token_ids) + k - 1, s.advantage, 1 / PHI, s.completion.logprobs[k])
        for s in renamed
        for k in s.trained.nonzero()[0]
    ]
    found = []
    for mb in (mb for rank in pack(strands_of(renamed), rng.randint(1, 4), rng.randint(1, 99), packed) for mb in rank):
        m = mb.trained
        assert torch.equal(mb.inputs[m] + 1, mb.targets[m])  # ids count up, so the input is the token before
        assert mb.weights[~m].abs().max() == 0 if (~m).any() else True
        columns = (mb.targets, mb.positions, mb.advantages, mb.weights, mb.sampler_logprobs)
        found += list(zip(*[c[m].tolist() for c in columns], strict=True))
    found.sort()
    assert [f[0] for f in found] == [e[0] for e in expected]
    for got, want in zip(found, expected, strict=True):
        assert got == pytest.approx(want, rel=1e-6)


def random_strands(rng: random.Random) -> list[TokenSequence]:
    out = []
    for _ in range(rng.randint(0, 25)):
        n = rng.randint(2, 40)
        out.append(TokenSequence(tuple(rng.randrange(99) for _ in range(n)), (False,) + (True,) * (n - 1), 1.0))
    return out


@pytest.mark.parametrize("packed", [True, False])
def test_ranks_get_equal_rows_and_rows_keep_within_max_tokens_unless_one_sequence_is_longer(packed: bool):
    rng, over = random.Random(9), 0
    for _ in range(200):
        sequences, ranks, most = random_strands(rng), rng.randint(1, 5), rng.randint(10, 120)
        rows = pack(sequences, ranks, most, packed)
        assert len(rows) == ranks
        assert len({len(rank) for rank in rows}) == 1
        for mb in (mb for rank in rows for mb in rank):
            sequences = len(mb.starts) - 1 if packed else len(mb.inputs)
            size = mb.inputs.numel() + sequences  # the last token of a sequence is a target only
            assert size <= most or sequences == 1, (size, most, sequences)
            over += size > most
    assert over > 20


def test_rows_of_long_and_of_short_sequences_cost_the_same():
    """A row that one long sequence fills costs more than one of many short ones: it gets less beside it."""
    rng = random.Random(3)
    lengths = [min(int(rng.lognormvariate(4, 1)) + 2, 1000) for _ in range(400)]
    sequences = [TokenSequence((0,) * n, (False,) + (True,) * (n - 1), 1.0) for n in lengths]

    def spread(pair_cost: float) -> float:
        """What waits for the slowest rank, over the whole, where ranks run their rows side by side."""
        rows = lay_out(sequences, 4, 4000, pair_cost=pair_cost)
        costs = [[int(sum(n + 1e-2 * n * n for n in row.lengths.astype(float))) for row in rank] for rank in rows]
        return 1 - sum(map(sum, costs)) / (4 * sum(max(side) for side in zip(*costs, strict=True)))

    assert spread(1e-2) < 0.03
    assert spread(1e-2) < spread(0) / 3


def test_a_row_says_where_its_sequences_begin():
    sequences = [TokenSequence(tuple(range(n)), (False,) + (True,) * (n - 1), 1.0) for n in (5, 3, 7)]
    [[mb]] = pack(sequences, 1, 100)
    assert mb.starts.tolist() == [0, 6, 10, 12]
    assert mb.starts.dtype == torch.int32
    assert mb.positions.tolist() == [[*range(6), *range(4), *range(2)]]
    assert mb.inputs.tolist() == mb.positions.tolist()
    assert mb.targets.tolist() == [[*range(1, 7), *range(1, 5), *range(1, 3)]]


def test_padding_is_on_the_right_and_never_trained():
    sequences = [TokenSequence(tuple(range(1, n + 1)), (False,) + (True,) * (n - 1), 0.5, 2.0) for n in (4, 2)]
    [[mb]] = pack(sequences, 1, 100, packed=False)
    assert len(mb.starts) == 0
    assert mb.inputs.tolist() == [[1, 2, 3], [1, 0, 0]]
    assert mb.targets.tolist() == [[2, 3, 4], [2, 0, 0]]
    assert mb.trained.tolist() == [[True] * 3, [True, False, False]]
    assert mb.weights.tolist() == [[0.5] * 3, [0.5, 0, 0]]
    assert mb.advantages.tolist() == [[2.0] * 3, [2.0, 0, 0]]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_rank_without_sequences_gets_one_untrained_token(count: int, packed: bool):
    sequences = [TokenSequence((1, 2, 3), (False, True, True), 1.0) for _ in range(count)]
    rows = pack(sequences, 4, 3, packed)
    assert [len(rank) for rank in rows] == [1, 1, 1, 1]
    empty = [mb for [mb] in rows if not mb.trained.any()]
    assert len(empty) == 4 - count
    assert all(mb.inputs.shape == (1, 1) and float(mb.weights.abs().sum()) == 0 for mb in empty)


def test_what_the_budget_cut_is_not_computed():
    sample = ragged(5, 1)[0]
    (cut,) = fill_budget([sample], 1)
    expected = [*sample.prompt.token_ids, sample.completion.token_ids[0]]
    assert sequence_of(cut, 1.0).token_ids.tolist() == expected
