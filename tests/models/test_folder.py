"""Model folders that are not what they say: one line that names the file, before anything is made."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ringrl.errors import DataError
from ringrl.models.folder import check_folder, tensors
from ringrl.models.loading import check_tensors, load_config, load_model, read_tokenizer
from tests.conftest import Inputs

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n"
Edit = Callable[[Path], object]


@pytest.fixture
def folder(inputs: Inputs, tmp_path: Path) -> Path:
    return Path(shutil.copytree(inputs.model, tmp_path / "model"))


def written(name: str, content: bytes) -> Edit:
    return lambda folder: (folder / name).write_bytes(content)


def changed(name: str, **keys: Any) -> Edit:
    def edit(folder: Path) -> None:
        file = folder / name
        value = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps({k: v for k, v in (value | keys).items() if v != "absent"}))

    return edit


def cut(name: str, share: float) -> Edit:
    def edit(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return edit


def stored(change: Callable[[dict[str, torch.Tensor]], object]) -> Edit:
    def edit(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    return edit


def sharded(folder: Path) -> None:
    """Two files and an index instead of one file."""
    weights = load_file(folder / WEIGHTS)
    names = sorted(weights)
    files = {n: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, n in enumerate(names)}
    for file in set(files.values()):
        save_file({n: weights[n] for n in names if files[n] == file}, folder / file, metadata={"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}))
    (folder / WEIGHTS).unlink()


def both(*edits: Edit) -> Edit:
    return lambda folder: [edit(folder) for edit in edits]


def renamed_in_index(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["model.norm.weights"] = index["weight_map"].pop("model.norm.weight")
    (folder / INDEX).write_text(json.dumps(index))


HEADERS: dict[str, tuple[Edit, str]] = {
    "no folder": (shutil.rmtree, "{}: no such model folder"),
    "no config": (lambda f: (f / "config.json").unlink(), "{}: no config.json, expected a Hugging Face"),
    "broken config": (cut("config.json", 0.5), "{}/config.json: not JSON: "),
    "a list as config": (written("config.json", b"[]"), "{}/config.json: got list, expected an object"),
    "config not fetched": (written("config.json", LFS), "{}/config.json: got a git-LFS pointer"),
    "broken generation_config": (written("generation_config.json", b"{"), "{}/generation_config.json: not JSON"),
    "broken tokenizer": (cut("tokenizer.json", 0.9), "{}/tokenizer.json: not JSON"),
    "tokenizer not fetched": (written("tokenizer.json", LFS), "{}/tokenizer.json: got a git-LFS pointer"),
    "sentencepiece not fetched": (written("tokenizer.model", LFS), "{}/tokenizer.model: got a git-LFS pointer"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "{}: no model.safetensors and no model.safetensors.index.json"),
    "other weights": (lambda f: (f / WEIGHTS).rename(f / "pytorch_model.bin"), "got pytorch_model.bin"),
    "an adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), "{}: got an adapter"),
    "weights not fetched": (written(WEIGHTS, LFS), "{}/model.safetensors: got a git-LFS pointer"),
    "empty weights": (written(WEIGHTS, b""), "{}/model.safetensors: got 0 bytes"),
    "a page": (written(WEIGHTS, b"<html>" * 100), "{}/model.safetensors: got 600 bytes, expected a safetensors"),
    "no header": (written(WEIGHTS, struct.pack("<Q", 2) + b"[]"), "{}/model.safetensors: got another format"),
    "odd header": (written(WEIGHTS, struct.pack("<Q", 8) + b'{"a": 1}'), "{}/model.safetensors: got a header that"),
    "cut weights": (cut(WEIGHTS, 0.75), "{}/model.safetensors: got "),
    "cut header": (cut(WEIGHTS, 0.001), "{}/model.safetensors: got "),
    "a shard is missing": (both(sharded, lambda f: (f / "model-00002-of-00002.safetensors").unlink()),
                           "{}/model-00002-of-00002.safetensors: no such file, expected it as"),
    "a shard is cut": (both(sharded, cut("model-00002-of-00002.safetensors", 0.5)),
                       "{}/model-00002-of-00002.safetensors: got "),
    "an index of others": (both(sharded, renamed_in_index), "no tensor model.norm.weights, expected it there"),
    "an empty index": (both(sharded, written(INDEX, b"{}")), "weight_map: got NoneType, expected the file of every"),
    "both forms": (both(lambda f: shutil.copy(f / WEIGHTS, f / "kept"), sharded,
                        lambda f: (f / "kept").rename(f / WEIGHTS)), "got model.safetensors beside an index"),
    "stop outside": (changed("generation_config.json", eos_token_id=[0, 512]),
                     "{}/generation_config.json: eos_token_id: got [0, 512], expected ids below vocab_size 512"),
    "stop of a word": (changed("config.json", eos_token_id="<eos>"), "{}/config.json: eos_token_id: got <eos>"),
    "negative stop": (changed("config.json", eos_token_id=-1), "{}/config.json: eos_token_id: got -1, expected ids"),
    "padding outside": (changed("config.json", pad_token_id=512), "{}/config.json: pad_token_id: got 512"),
    "fp8": (changed("config.json", quantization_config={"quant_method": "fp8"}),
            "{}/config.json: quantization_config: got fp8, expected a model that is not quantised"),
    "mxfp4 in a section": (changed("config.json", text_config={"quantization_config": {"quant_method": "mxfp4"}}),
                           "quantization_config: got mxfp4, expected"),
    "AutoGPTQ": (changed("quantize_config.json", bits=4), "{}: got quantize_config.json, expected a model that"),
    "bytes without a word": (stored(lambda w: w.update(extra=torch.zeros(3, dtype=torch.uint8))),
                             "{}: extra: got dtype U8, expected one of BF16"),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADERS)
def test_what_headers_show(folder: Path, case: str) -> None:
    check_folder(str(folder), own_weights=True)
    edit, said = HEADERS[case]
    edit(folder)
    with pytest.raises(DataError) as e:
        check_folder(str(folder), own_weights=True)
    assert said.format(folder) in str(e.value)
    assert "\n" not in str(e.value)


def test_vllm_may_sample_from_quantised_weights(folder: Path) -> None:
    changed("config.json", quantization_config={"quant_method": "gptq"})(folder)
    (folder / WEIGHTS).rename(folder / "gptq_model-4bit.safetensors")
    check_folder(str(folder), own_weights=False)
    check_tensors(str(folder), load_config(str(folder)))


def test_shards_hold_what_one_file_held(folder: Path) -> None:
    whole = tensors(str(folder))
    sharded(folder)
    check_folder(str(folder), own_weights=True)
    assert tensors(str(folder)) == whole
    assert whole["model.norm.weight"] == ((64,), "F32")


EXPERT = "model.layers.0.mlp.experts.3.up_proj.weight"
LOADED: dict[str, tuple[Edit, str]] = {
    "unknown": (changed("config.json", model_type="nova"), "model_type: got 'nova', expected one that transformers"),
    "code": (changed("config.json", model_type="nova", auto_map={"AutoConfig": "nova.Nova"}),
             "its auto_map names code of the folder, which ringrl never runs"),
    "no type": (changed("config.json", model_type="absent"), "model_type: got None, expected one"),
    "odd value": (changed("config.json", hidden_size="wide"), "{}/config.json: "),
    "no language model": (changed("config.json", model_type="t5"), "model_type: got 't5', expected a causal language"),
    "odd sizes": (changed("config.json", num_attention_heads=0), "no such model can be built: ZeroDivisionError"),
    "a norm": (stored(lambda w: w.pop("model.norm.weight")), "{}: 1 tensor is missing: model.norm.weight"),
    "an expert": (stored(lambda w: w.pop(EXPERT)), "{}: 1 tensor is missing: " + EXPERT),
    "a head": (stored(lambda w: w.pop("lm_head.weight")), "{}: 1 tensor is missing: lm_head.weight"),
    "layers": (changed("config.json", num_hidden_layers=3), "tensors are missing: model.layers.2.input_layernorm."),
    "fewer layers": (changed("config.json", num_hidden_layers=1), "tensors are unknown to the architecture"),
    "another tensor": (stored(lambda w: w.update({"model.extra": torch.ones(2)})), "1 tensor is unknown to the archi"),
    "a shape": (stored(lambda w: w.update({"model.norm.weight": torch.ones(3)})),
                "{}: 1 tensor is of another shape than config.json says: model.norm.weight"),
    "an expert's shape": (stored(lambda w: w.update({EXPERT: torch.ones(3, 5)})), "of another shape than config.json"),
    "vocabulary": (changed("config.json", vocab_size=480), "tensors are of another shape than config.json says: "),
    "tied to others": (changed("config.json", tie_word_embeddings=True), "an output head that differs from the embedd"),
}  # fmt: skip


@pytest.mark.parametrize("case", LOADED)
def test_what_the_architecture_shows(folder: Path, case: str) -> None:
    edit, said = LOADED[case]
    edit(folder)
    with pytest.raises(DataError) as e:
        load_model(str(folder), load_config(str(folder)), torch.float32)
    assert said.format(folder) in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("case", ["a norm", "an expert", "layers", "a shape", "vocabulary"])
def test_the_headers_alone_show_it_to_those_who_load_no_weights(folder: Path, case: str) -> None:
    config = load_config(str(folder))
    check_tensors(str(folder), config)
    edit, said = LOADED[case]
    edit(folder)
    with pytest.raises(DataError) as e:
        check_tensors(str(folder), load_config(str(folder)))
    assert said.format(folder) in str(e.value)


def test_a_tied_head_that_is_stored_twice_is_one(folder: Path) -> None:
    """As in Qwen3-0.6B; what is sent and saved has it once."""
    from ringrl.policy.sync import check_complete, expected_kinds

    changed("config.json", tie_word_embeddings=True)(folder)
    stored(lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"].clone()}))(folder)
    check_tensors(str(folder), load_config(str(folder)))
    lm = load_model(str(folder), load_config(str(folder)), torch.float32)
    assert lm.lm_head.weight is lm.model.embed_tokens.weight
    kinds = expected_kinds(str(folder), lm)
    assert set(tensors(str(folder))) - set(kinds) == {"lm_head.weight"}
    from ringrl.policy.experts import weight_buckets

    assert sum(len(bucket) for bucket in check_complete(weight_buckets(lm, 1 << 20), kinds, lm.dtype)) == len(kinds)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (changed("tokenizer_config.json", eos_token=7, pad_token={"no": 1}), "the tokenizer cannot be loaded: "),
        (changed("tokenizer.json", model={"type": "Nova"}), "the tokenizer cannot be loaded: "),
        (changed("config.json", vocab_size=300), "got a tokenizer of "),
    ],
)
def test_tokenizers(folder: Path, edit: Edit, said: str) -> None:
    assert len(read_tokenizer(str(folder))) > 300
    edit(folder)
    with pytest.raises(DataError) as e:
        read_tokenizer(str(folder))
    assert str(e.value).startswith(f"{folder}: {said}")
    assert "\n" not in str(e.value)
