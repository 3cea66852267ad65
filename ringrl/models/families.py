"""What a model folder's config.json says about how the model can be trained, for all commands alike.

Plain data and arithmetic, without torch, so that `ringrl plan` and a dry run know it too. docs/models.md is the table
of families that were compared; `scripts/families.py` makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringrl.errors import DataError
from ringrl.models.folder import read_object

# layers whose output for a token depends on other tokens through attention alone, which knows where sequences end
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention", "attention"}
# with layers that carry a state from token to token which nothing resets at a boundary in a packed row
STATE = ("bamba", "deepseek_v4", "falcon_h1", "falcon_mamba", "glm5_next", "granitemoehybrid", "jamba", "kimi_linear",
         "lfm2", "lfm2_moe", "mamba", "mamba2", "minicpmv4_6", "minicpmv4_7", "minimax", "nemotron_h",
         "nemotron_h_omni", "olmo_hybrid", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_next",
         "qwen4_exp", "recurrent_gemma", "rwkv", "xlstm", "zamba", "zamba2", "zaya")  # fmt: skip
REFUSED = {
    "deepseek_v4": "its first routers choose experts by token, and transformers does not record their logits",
    "jamba": "its routers are plain layers, so what they choose can be neither counted nor replayed",
    "jetmoe": "its attention has experts too, and only one router a layer can be counted and replayed",
    "llama4": "its routers do not say which experts they choose, so their load cannot be counted",
    "llama4_text": "its routers do not say which experts they choose, so their load cannot be counted",
}
EXTENDED = ("linear", "dynamic", "yarn", "deepseek_yarn")  # rotary scalings whose factor multiplies the positions


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config.json that describes the language model."""
    return config.get("text_config") or config


def keeps_state(config: Mapping[str, Any]) -> bool:
    """Whether a packed row would leak from one sequence into the next, so that the model is trained unpacked."""
    text = text_config(config)
    layers = set(text.get("layer_types") or text.get("layers_block_type") or ())
    return text.get("model_type") in STATE or not layers <= ATTENTION


def refusal(config: Mapping[str, Any]) -> str:
    """Why this model cannot be trained exactly; empty when nothing speaks against it."""
    return REFUSED.get(str(text_config(config).get("model_type")), "")


def notes(config: Mapping[str, Any], packing: bool) -> list[str]:
    """What a dry run and a launch tell of a model that is to be trained."""
    name = f"model_type {text_config(config).get('model_type')}"
    if why := refusal(config):
        return [f"{name} cannot be trained: {why}"]
    if packing and keeps_state(config):
        return [f"{name}: padded rows, although trainer.packing is on: its layers carry their state from token to "
                f"token, and nothing resets it between packed sequences"]  # fmt: skip
    return []


def max_positions(config: Mapping[str, Any]) -> int:
    """The longest sequence, in tokens, that the model was made for; 0 when config.json sets no limit."""
    text = text_config(config)
    longest = text.get("max_position_embeddings") or text.get("n_positions") or 0
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type")) in EXTENDED:
        original = rope.get("original_max_position_embeddings") or longest
        longest = max(longest, int(original * rope.get("factor", 1)))
    return int(longest)


def check_positions(folder: str, tokens: int, key: str) -> None:
    """Raises DataError when a sequence of so many tokens, as `key` allows, is longer than the model was made for."""
    most = max_positions(read_object(Path(folder) / "config.json"))
    if most and tokens > most:
        raise DataError(f"{key}: got sequences of {tokens} tokens, expected at most {most}, max_position_embeddings in "
                        f"{folder}/config.json")  # fmt: skip


def check_trainable(folder: str) -> None:
    """Raises DataError for a family that cannot be trained exactly."""
    config = read_object(Path(folder) / "config.json")
    if refusal(config):
        raise DataError(f"{folder}: {notes(config, False)[0]}")
