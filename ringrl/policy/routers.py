"""What the routers of a MoE compute in a forward pass, and which experts they must take instead (routing replay).

Forward hooks on the router modules of transformers, which return (logits, gate weights, chosen experts). Replay
keeps the training logits, and with them the gradient: only the choice comes from elsewhere.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from ringrl.algo.router import gates
from ringrl.errors import DataError
from ringrl.models.transformers_internals import router_modules

SCALES = ("routed_scaling_factor", "route_scale")  # names that routers give to the factor of their gate weights


@dataclass(frozen=True, slots=True)
class Gate:
    """How gate weights come from logits: score, take the chosen, divide by their sum if `normalise`, times `scale`."""

    scoring: str = "softmax"  # or "sigmoid"
    normalise: bool = True
    scale: float = 1.0
    replays: bool = True  # False: gate weights arise in another way and cannot be computed for other experts
    order: tuple[int, int, int] = (0, 1, 2)  # which outputs of a router are logits, gate weights, chosen experts


class Routers:
    """All routers of a model, in the order of its layers; none for a dense model."""

    def __init__(self, lm: PreTrainedModel) -> None:
        routers, logits_at = router_modules(lm)
        names = [name for name, _ in lm.base_model.named_modules()]
        blocks = sum(name.endswith(".experts") and not name.endswith(".experts.experts") for name in names)
        if len(routers) < blocks:
            raise DataError(f"model_type {lm.config.model_type}: got {len(routers)} routers whose logits transformers "
                            f"records, expected {blocks}, one for every layer with experts")  # fmt: skip
        self.modules, self.layers = list(routers.values()), [_layer(name) for name in routers]
        self.gate = _gate(*next(iter(routers.items())), lm, logits_at) if routers else Gate()
        self.model_type = str(lm.config.model_type)
        # layer by layer, from the last forward pass
        self.logits: list[torch.Tensor] = []  # [tokens, E]
        self.chosen: list[torch.Tensor] = []  # [tokens, top_k] int64
        self.forced: torch.Tensor | None = None  # [layers, tokens, top_k]; -1 leaves the choice to the router
        self.recording = False
        for i, module in enumerate(self.modules):
            module.register_forward_hook(lambda m, args, out, i=i: self._hook(i, out))

    @property
    def scoring(self) -> str:
        return self.gate.scoring

    def record(self, forced: torch.Tensor | None) -> None:
        """Before a forward pass; what it computes is kept until `recorded`.

        Raises:
            DataError: replay is wanted, and this family's gate weights cannot be computed for given experts.
        """
        if forced is not None and not self.gate.replays:
            raise DataError(f"loss.router_replay: expected none with model_type {self.model_type}: the gate weights of "
                            f"its routers are no softmax or sigmoid of their logits")  # fmt: skip
        if forced is not None and len(forced) > len(self.modules):  # an engine counts dense layers, which route nothing
            forced = forced[self.layers]
        self.logits, self.chosen, self.forced, self.recording = [], [], forced, True

    def recorded(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """After it: logits and chosen experts of every layer. What backward computes again is not recorded."""
        self.recording = False
        return self.logits, self.chosen

    def _hook(self, layer: int, out: Any) -> Any:
        logits, weights, chosen = (out[i] for i in self.gate.order)
        if self.forced is not None:
            forced = self.forced[layer].to(chosen.device, chosen.dtype)
            own, gate, chosen = chosen, self.gate, torch.where(forced < 0, chosen, forced)
            same = (own == chosen).all(-1, keepdim=True)
            replayed = gates(logits, chosen, gate.scoring, gate.normalise, gate.scale).to(weights.dtype)
            weights = torch.where(same, weights, replayed)
        if self.recording:
            self.logits.append(logits)
            self.chosen.append(chosen)
        answer = dict(zip(self.gate.order, (logits, weights, chosen), strict=True))
        return tuple(answer[i] for i in range(3))


def _layer(name: str) -> int:
    """layers.3.mlp.gate -> 3"""
    return next(int(part) for part in name.split(".") if part.isdigit())


def _probe(name: str, router: nn.Module, lm: PreTrainedModel, hidden: torch.Tensor) -> Any:
    """What a router answers to hidden states [n, H], with what else its block passes to it (a bias per expert)."""
    block = lm.base_model.get_submodule(name.rpartition(".")[0])
    more = [getattr(block, key, None) for key in list(inspect.signature(router.forward).parameters)[1:]]
    try:
        return router(hidden, *more)
    except ValueError:  # it wants [B, L, H]
        return router(hidden[None], *more)


@torch.no_grad()
def _gate(name: str, router: nn.Module, lm: PreTrainedModel, logits_at: int) -> Gate:
    """How a router makes gate weights from logits, by asking it.

    Args:
        logits_at: which of its outputs are the logits.

    Raises:
        DataError: it does not return logits, gate weights and experts.
    """
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(8, lm.config.get_text_config().hidden_size, generator=draw).to(lm.device, lm.dtype)
    out = _probe(name, router, lm, hidden)
    scale = next((float(getattr(router, key)) for key in SCALES if hasattr(router, key)), 1.0)
    experts = [i for i, x in enumerate(out) if not x.is_floating_point()] if isinstance(out, tuple) else []
    if len(out) == 3 and len(experts) == 1 and experts != [logits_at]:
        order = logits_at, 3 - logits_at - experts[0], experts[0]
        logits, weights, chosen = (out[i] for i in order)
        for scoring, normalise in product(("softmax", "sigmoid"), (False, True)):
            expected = gates(logits, chosen, scoring, normalise, scale)
            if torch.allclose(expected, weights.float(), rtol=2e-2, atol=1e-3):
                return Gate(scoring, normalise, scale, order=order)
        if torch.allclose(logits.float(), _linear(router, hidden), rtol=2e-2, atol=1e-2):
            sigmoid = getattr(lm.config, "scoring_func", "") == "sigmoid" or hasattr(router, "e_score_correction_bias")
            return Gate("sigmoid" if sigmoid else "softmax", False, scale, replays=False, order=order)
    raise DataError(f"model_type {lm.config.model_type}: got a router {type(router).__name__}, expected one that "
                    f"returns logits, gate weights and experts")  # fmt: skip


def _linear(router: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """Logits from the only matrix of a router."""
    [weight] = [p for p in router.parameters() if p.dim() == 2]
    return F.linear(hidden, weight.to(hidden.dtype)).float()
