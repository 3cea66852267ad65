"""Models and configurations through transformers, such that a folder which is not what it says ends in one line."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.core_model_loading import revert_weight_conversion

import ringrl.models.bailing_moe  # noqa: F401  (registers Ling)
from ringrl.errors import DataError
from ringrl.models.folder import quantisation, read_config, tensors

NO_ATTENTION = re.compile("attention implementation|flash.?attention", re.IGNORECASE)  # what transformers says of one


def load_config(path: str) -> PreTrainedConfig:
    """Raises DataError: transformers does not know the architecture without running code from the folder, or a value in
    it is wrong."""
    raw = read_config(path)
    kind = raw.get("model_type")
    if kind not in CONFIG_MAPPING:
        code = "; its auto_map names code of the folder, which ringrl never runs" if "auto_map" in raw else ""
        raise DataError(f"{path}/config.json: model_type: got {kind!r}, expected one that transformers "
                        f"{transformers.__version__} knows{code}")  # fmt: skip
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except Exception as e:  # whatever a class makes of a wrong value
        raise DataError(f"{path}/config.json: {_words(e)}") from None
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise DataError(f"{path}/config.json: model_type: got {kind!r}, expected a causal language model's")
    return config


def read_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Of a folder with a model or without.

    Raises:
        DataError: it cannot be read without running code from the folder, or has more ids than the model.
    """
    if not (Path(path) / "tokenizer_config.json").is_file():
        raise DataError(f"{path}: no tokenizer_config.json, expected a model folder with its tokenizer")
    here = (Path(path) / "config.json").is_file()
    if here:
        load_config(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        ids = tokenizer.get_vocab().values()
    except Exception as e:  # whatever one of the many classes makes of the files
        raise DataError(f"{path}: the tokenizer cannot be loaded: {_words(e)}") from None
    size, most = read_config(path).get("vocab_size") if here else None, max(ids, default=-1) + 1
    if not ids or (isinstance(size, int) and most > size):
        raise DataError(f"{path}: got a tokenizer of {most} ids, expected 1 to {size}, vocab_size of config.json: the "
                        f"model has no embedding for others")  # fmt: skip
    return tokenizer


def load_model(
    path: str, config: PreTrainedConfig, dtype: torch.dtype, attention: str | None = None
) -> PreTrainedModel:
    """The causal language model of a folder, every weight of it from there; layers that predict further tokens are left
    out.

    Raises:
        DataError: tensors are missing, of another shape or of no use to the model, or tied ones differ; or it has no
            such attention.
    """
    try:
        lm, found = AutoModelForCausalLM.from_pretrained(
            path, config=config, dtype=dtype, trust_remote_code=False, use_safetensors=True, output_loading_info=True,
            ignore_mismatched_sizes=True, attn_implementation=attention,
        )  # fmt: skip
    except Exception as e:  # whatever a class makes of wrong sizes
        if attention and (NO_ATTENTION.search(str(e)) or e.args == (attention,)):
            raise DataError(f"trainer.attention: got {attention}, expected another with model_type "
                            f"{config.model_type}: {_words(e)}") from None  # fmt: skip
        _refuse(path, *_differences(path, config)[:2])  # which say more, if there are any
        raise DataError(f"{path}: the model cannot be loaded: {_words(e)}") from None
    if found["missing_keys"] or found["mismatched_keys"]:
        _refuse(path, *_differences(path, config)[:2])
    others = [name for name in found["unexpected_keys"] if not _predicts_further_tokens(name, read_config(path))]
    _refuse(path, found["missing_keys"], [name for name, *_ in found["mismatched_keys"]], others)
    head, embeddings = lm.get_output_embeddings(), lm.get_input_embeddings()
    if config.get_text_config().tie_word_embeddings and head is not None and head.weight is not embeddings.weight:
        raise DataError(f"{path}: got an output head that differs from the embeddings, expected equal ones, or "
                        f"tie_word_embeddings: false in config.json")  # fmt: skip
    return lm


def _predicts_further_tokens(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a tensor is one of the layers behind the last, which transformers has for no family."""
    last = int(config.get("num_hidden_layers") or 0)
    further = {str(n) for n in range(last, last + int(config.get("num_nextn_predict_layers") or 0))}
    layer = re.search(r"\.layers\.(\d+)\.", name)
    return name.startswith("mtp.") or bool(layer and layer[1] in further)


def check_tensors(path: str, config: PreTrainedConfig) -> None:
    """Compares the headers of a folder with its architecture, for those who do not load the weights themselves.

    Names that the architecture does not have prove nothing: some are read under names of earlier versions.

    Raises:
        DataError: tensors are missing and no others could be meant, or have another shape.
    """
    if not quantisation(path):
        missing, shapes, others = _differences(path, config)
        _refuse(path, [] if others else missing, shapes)


def written(lm: PreTrainedModel, config: PreTrainedConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a checkpoint of the architecture, under the names that `lm` was loaded by."""
    whole = _without_weights(config)  # `lm` may hold a part of them
    own = {name: t for name, t in whole.state_dict().items() if name not in whole.all_tied_weights_keys}
    return {name: tuple(t.shape) for name, t in revert_weight_conversion(lm, own).items()}


def _without_weights(config: PreTrainedConfig) -> PreTrainedModel:
    """Raises DataError for sizes that do not fit each other."""
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except Exception as e:  # whatever a class makes of them
        raise DataError(f"{config.name_or_path}/config.json: no such model can be built: {_words(e)}") from None


def _differences(path: str, config: PreTrainedConfig) -> tuple[list[str], list[str], list[str]]:
    """Names of tensors that the folder lacks, that have another shape, and that the architecture does not have."""
    got = {name: shape for name, (shape, _) in tensors(path).items()}
    lm = _without_weights(config)
    wanted = written(lm, config)
    shapes = [name for name in wanted if got.get(name, wanted[name]) != wanted[name]]
    more = got.keys() - wanted.keys() - lm.all_tied_weights_keys.keys()
    return sorted(wanted.keys() - got.keys()), sorted(shapes), sorted(more)


def _refuse(path: str, missing: Collection[str], shapes: Collection[str], others: Collection[str] = ()) -> None:
    for names, how in ((missing, "missing"), (shapes, "of another shape than config.json says"),
                       (others, "unknown to the architecture in config.json")):  # fmt: skip
        if names:
            raise DataError(f"{path}: {len(names)} tensor{'s are' if len(names) > 1 else ' is'} {how}: "
                            f"{', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''}")  # fmt: skip


def _words(e: Exception) -> str:
    """The beginning of what a library said, in one line."""
    return " ".join(f"{type(e).__name__}: {e}".split())[:300]
