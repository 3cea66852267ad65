"""Embeddings of problems, from a model folder or a server, and the pairs that are similar.

With a model folder an embedding is the mean of the last hidden states of a text's tokens; a server chooses its own. All
have length 1, so a dot product is a cosine; they are stored as float16, two bytes per dimension.

Finding pairs is quadratic, block by block; memory holds two blocks, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringrl.config.data import Embedding
from ringrl.curate.chain import MapShards
from ringrl.curate.lsh import save
from ringrl.curate.shards import Shards
from ringrl.errors import DataError, RingError, UserError
from ringrl.http import Client, ServerFailed, secret

BATCH_TOKENS = 16_384  # tokens per batch, padding included
REQUEST = 64  # texts in one request
CHUNK_TEXTS = 1024  # texts embedded between two checks for an interrupt
BLOCK = 4096  # rows per side of one comparison
MOST_TOKENS = 8192  # longer texts are cut
Half = NDArray[np.float16]
Embed = Callable[[Sequence[str]], Half]  # [texts, dimensions], normalised


def embedder(cfg: Embedding) -> Embed:
    """Raises DataError for a folder that holds no model; calls raise UserError or RingError as the server does."""
    if cfg.server.base_url:
        return Served(cfg)
    return LocalEmbedder(cfg.model)


def embed_shards(cfg: Embedding, shards: Shards, folder: Path, over: MapShards) -> list[Path]:
    """Writes one file per shard with the embeddings of its problems, in order, unless it exists."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{n:06d}.npy" for n in shards.numbers]
    todo = [(n, file) for n, file in zip(shards.numbers, files, strict=True) if not file.is_file()]
    embed = embedder(cfg) if todo else None
    for n, file in todo:
        assert embed
        texts = [row["problem"] for row in shards.rows(n)]
        batches = [texts[i : i + CHUNK_TEXTS] for i in range(0, len(texts), CHUNK_TEXTS)] or [[]]
        save(file, np.concatenate([v for _, v in over(f"embeddings of shard {n}", embed, batches, in_process=True)]))
    return files


class Vectors:
    """Rows of several files as one array, read on access."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        shapes = [np.load(f, mmap_mode="r").shape for f in files]
        self.starts = np.cumsum([0, *(n for n, _ in shapes)])

    def __getitem__(self, rows: NDArray[np.int64] | list[int]) -> NDArray[np.float32]:
        """[rows, dimensions] of sorted row numbers."""
        cuts = np.searchsorted(rows, self.starts)
        parts = [
            np.load(file, mmap_mode="r")[np.asarray(rows[cuts[i] : cuts[i + 1]]) - self.starts[i]]
            for i, file in enumerate(self.files)
            if cuts[i] < cuts[i + 1]
        ]
        return np.concatenate(parts).astype(np.float32)


Alike = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


def alike(vectors: Vectors, rows: NDArray[np.int64], similarity: float) -> Iterator[Alike]:
    """(first, second, cosine) of all pairs with at least this cosine among sorted row numbers, block by block."""
    none = np.empty(0, np.int64)
    yield none, none, np.empty(0, np.float32)
    for i in range(0, len(rows), BLOCK):
        left = vectors[rows[i : i + BLOCK]]
        for j in range(i, len(rows), BLOCK):
            a, b, cosine = above(left, left if i == j else vectors[rows[j : j + BLOCK]], similarity)
            new = a < b if i == j else slice(None)
            yield rows[i + a[new]], rows[j + b[new]], cosine[new]


def above(left: NDArray[np.float32], right: NDArray[np.float32], similarity: float) -> Alike:
    """(i, j, cosine) of the similar rows of two arrays, computed on the first GPU if there is one."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    cosine = torch.from_numpy(left).to(device) @ torch.from_numpy(right).to(device).T
    i, j = torch.where(cosine >= similarity)
    return i.cpu().numpy(), j.cpu().numpy(), cosine[i, j].cpu().numpy()


class LocalEmbedder:
    """Embeds with a model folder in this process, on the first GPU if there is one."""

    def __init__(self, folder: str) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        if not (Path(folder) / "config.json").is_file():
            raise DataError(f"embedding.model: {folder}: no config.json, expected a folder that transformers loads")
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if self.device == "cuda" else torch.float32
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.tokenizer.padding_side = "right"
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self.model = AutoModel.from_pretrained(folder, dtype=dtype, trust_remote_code=False, use_safetensors=True)
        self.model = self.model.to(self.device).eval()
        positions = getattr(self.model.config, "max_position_embeddings", MOST_TOKENS)
        self.most = min(positions, self.tokenizer.model_max_length, MOST_TOKENS)

    def __call__(self, texts: Sequence[str]) -> Half:
        import torch

        tokens = self.tokenizer(list(texts), truncation=True, max_length=self.most)["input_ids"]
        order = sorted(range(len(texts)), key=lambda n: len(tokens[n]))
        vectors = np.empty((len(texts), self.model.config.hidden_size), np.float16)
        with torch.inference_mode():
            while order:
                longest = order[-max(1, BATCH_TOKENS // max(1, len(tokens[order[-1]]))) :]
                del order[-len(longest) :]
                batch = self.tokenizer.pad({"input_ids": [tokens[n] for n in longest]}, return_tensors="pt")
                batch = {k: batch[k].to(self.device) for k in ("input_ids", "attention_mask")}
                states = self.model(**batch).last_hidden_state.float()
                mask = batch["attention_mask"].unsqueeze(2)
                mean = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
                vectors[longest] = torch.nn.functional.normalize(mean, dim=1).half().cpu().numpy()
        return vectors


class Served:
    """POST BASE_URL/embeddings."""

    def __init__(self, cfg: Embedding) -> None:
        self.cfg, server = cfg, cfg.server
        key = secret(server.key_variable)
        self.client = Client(server.base_url, key, server.deadline_s, server.retries, server.concurrent)

    def __call__(self, texts: Sequence[str]) -> Half:
        parts = [list(texts[i : i + REQUEST]) for i in range(0, len(texts), REQUEST)]
        with ThreadPoolExecutor(self.cfg.server.concurrent) as pool:
            rows = [vector for part in pool.map(self._ask, parts) for vector in part]
        vectors = np.array(rows, np.float32).reshape(len(texts), -1 if rows else 0)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.all(np.isfinite(lengths)) or not np.all(lengths):
            raise RingError(f"{self.cfg.server.base_url}: an embedding of length 0 or without one")
        return (vectors / lengths).astype(np.float16)

    def _ask(self, texts: list[str]) -> list[Any]:
        try:
            reply = self.client.post("embeddings", {"model": self.cfg.model, "input": texts})
        except ServerFailed as e:
            raise RingError(f"{e}; what is finished is kept for --resume") from None
        try:
            data = sorted(reply["data"], key=lambda d: d["index"])
            vectors = [d["embedding"] for d in data]
            if len(vectors) != len(texts) or len({len(v) for v in vectors}) > 1:
                raise ValueError(f"{len(vectors)} embeddings of {len(texts)} texts")
        except (KeyError, TypeError, ValueError) as e:
            raise UserError(f"{self.cfg.server.base_url}: no list of embeddings: {e!r} in {str(reply)[:200]}") from None
        return vectors
