"""Embeddings do not depend on how texts are batched, and all alike pairs are found, whatever the blocks."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ringrl.config.data import Embedding
from ringrl.config.sections import Server
from ringrl.curate import embed
from ringrl.curate.embed import Vectors, above, alike, embed_shards, embedder
from ringrl.curate.shards import Dropped, Shards
from ringrl.errors import DataError, RingError, UserError
from tests.conftest import Inputs
from tests.curate.test_deduplicate import over, row, run

TEXTS = ["What is 2 + 2?", "How many?", "Seven cats sat on a mat, and then they all went home again.", "x", "3 * 4 = ?"]


def test_a_model_folder_by_its_definition(inputs: Inputs):
    """The mean over tokens of the last hidden states, whichever texts are beside it."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    found = embedder(Embedding(model=inputs.model))(TEXTS)
    model, tokenizer = AutoModel.from_pretrained(inputs.model).eval(), AutoTokenizer.from_pretrained(inputs.model)
    for text, vector in zip(TEXTS, found, strict=True):
        with torch.inference_mode():
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].float().mean(0)
        np.testing.assert_allclose(vector, mean / mean.norm(), atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(found.astype(np.float32), axis=1), 1, atol=1e-3)
    assert found.dtype == np.float16


def test_batches_do_not_matter(inputs: Inputs, monkeypatch: pytest.MonkeyPatch):
    whole = embedder(Embedding(model=inputs.model))(TEXTS)
    monkeypatch.setattr(embed, "BATCH_TOKENS", 1)
    np.testing.assert_allclose(embedder(Embedding(model=inputs.model))(TEXTS), whole, atol=2e-3)


def test_a_folder_without_a_model(tmp_path: Path):
    with pytest.raises(DataError, match=r"no config\.json, expected a folder"):
        embedder(Embedding(model=str(tmp_path)))


def test_shards_are_embedded_once(inputs: Inputs, tmp_path: Path):
    shards = Shards(tmp_path / "s")
    for n in range(3):
        shards.write(n, "s", [row(n, t) for t in TEXTS[n : n + 2]])
    how = Embedding(model=inputs.model)
    files = embed_shards(how, shards, tmp_path / "e", over)
    vectors = Vectors(files)
    assert vectors.starts.tolist() == [0, 2, 4, 6]
    np.testing.assert_array_equal(vectors[[1, 2]], vectors[[1]].repeat(2, 0))  # the same text twice
    before = files[1].read_bytes()
    files[0].unlink()
    files[1].write_bytes(before + b" ")  # would be seen to be made again
    assert embed_shards(how, shards, tmp_path / "e", over) == files
    assert files[1].read_bytes() == before + b" "
    np.testing.assert_array_equal(Vectors(files)[[0]], vectors[[0]])


@pytest.mark.parametrize("block", [1, 3, 7, 100])
def test_all_pairs_are_found_whatever_the_blocks(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch):
    draw = np.random.default_rng(0)
    full = draw.normal(size=(40, 3)).astype(np.float32)
    full = (full / np.linalg.norm(full, axis=1, keepdims=True)).astype(np.float16)
    files = [tmp_path / f"{n}.npy" for n in range(3)]
    for file, part in zip(files, (full[:15], full[15:15], full[15:]), strict=True):
        np.save(file, part)
    monkeypatch.setattr(embed, "BLOCK", block)
    rows = np.array([n for n in range(40) if n % 5])
    found = [np.concatenate(some) for some in zip(*alike(Vectors(files), rows, 0.9), strict=True)]
    product = full.astype(np.float32) @ full.astype(np.float32).T
    want = {(a, b): product[a, b] for a in rows for b in rows if a < b and product[a, b] >= 0.9}
    assert len(want) > 10
    got = {(int(a), int(b)): c for a, b, c in zip(*found, strict=True)}
    assert got == pytest.approx({(int(a), int(b)): c for (a, b), c in want.items()}, abs=1e-5)
    assert len(found[0]) == len(got)


def test_pairs_of_two_sets():
    left, right = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[[2, 0]]
    i, j, cosine = above(left, right, 0.99)
    assert (i.tolist(), j.tolist(), cosine.tolist()) == ([0, 2], [1, 0], [1.0, 1.0])


class Endpoint(http.server.ThreadingHTTPServer):
    """Embeds a text by how often four words are in it."""

    status = (200,)  # of the requests, one after the other, the last one for ever
    answer: Any = None  # instead of embeddings
    seen: list[dict[str, Any]]


WORDS = ("cat", "dog", "house", "tree")


class Handler(http.server.BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        at = len(self.server.seen)
        self.server.seen.append({**body, "path": self.path, "key": self.headers.get("authorization")})
        data = [{"index": n, "embedding": [t.count(w) + 0.0 for w in WORDS]} for n, t in enumerate(body["input"])]
        payload = json.dumps(self.server.answer or {"data": data[::-1]}).encode()
        self.send_response(self.server.status[min(at, len(self.server.status) - 1)])
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint(("127.0.0.1", 0), Handler) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def served(endpoint: Endpoint, **more: Any) -> Embedding:
    server = Server(base_url=f"http://127.0.0.1:{endpoint.server_port}/v1/", key_variable="SOME_KEY", retries=1)
    return Embedding(model="words", server=server, **more)


def test_a_server(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOME_KEY", "secret")
    endpoint.status = (503, 200)
    found = embedder(served(endpoint))(["cat dog"] + 100 * ["tree tree"] + ["house"])
    assert found.shape == (102, 4)
    np.testing.assert_allclose(found[[0, 1, 100, 101]], [[0.7071, 0.7071, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1],
                                                         [0, 0, 1, 0]], atol=1e-3)  # fmt: skip
    assert {(s["path"], s["key"], s["model"]) for s in endpoint.seen} == {("/v1/embeddings", "Bearer secret", "words")}
    assert sorted(len(s["input"]) for s in endpoint.seen)[-2:] in ([38, 64], [64, 64])  # one came twice


@pytest.mark.parametrize(
    ("status", "answer", "error", "message"),
    [
        (404, None, UserError, "status 404"),
        (500, None, RingError, "2 attempts failed"),
        (200, {"data": []}, UserError, "0 embeddings of 1 texts"),
        (200, {"data": [{"index": 0}]}, UserError, "KeyError"),
        (200, {"data": [{"index": 0, "embedding": [0.0, 0.0]}]}, RingError, "length 0"),
    ],
)
def test_a_server_that_does_not_embed(endpoint: Endpoint, status: int, answer: Any, error: type, message: str):
    endpoint.status, endpoint.answer = (status,), answer
    with pytest.raises(error, match=message):
        embedder(served(endpoint))(["cat"])


def test_problems_of_the_same_meaning_are_dropped(endpoint: Endpoint, tmp_path: Path):
    rows = [row(0, "cat cat dog, in how many ways?"), row(1, "seventeen: dog cat cat!"), row(2, "house, so what then?"),
            row(3, "Another one, with cat dog cat", "8"), row(4, "tree and dog"), row(5, "dog, and then tree", "14/2"),
            row(6, "cat cat dog, in how many ways")]  # fmt: skip
    how = served(endpoint).model_dump()
    results = run(tmp_path, rows, 2, embedding=how)
    dropped = [(r.row["id"], r.reason, r.more["twin"]) for r in results if isinstance(r, Dropped)]
    assert dropped == [
        ("a/1", "same meaning", "a/0"),
        ("a/5", "same meaning", "a/4"),
        ("a/6", "exact duplicate", "a/0"),
    ]
