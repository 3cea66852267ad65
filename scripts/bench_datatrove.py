"""Deduplication and decontamination of JSON lines by datatrove, timed. bench_data.py calls it with the Python of
another environment, so it imports nothing of ringrl.

    python scripts/bench_datatrove.py FILE KNOWN WORK PROCESSES      prints {"seconds": {step: s}, "kept": {step: rows}}

It needs datatrove[io,processing], spacy and xxhash.
MinHash as ringrl's: 24 bands of 5 hashes, over runs of 3 words; n-grams of 13 words with the known problems.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import create_hash_func
from datatrove.utils.logging import logger
from datatrove.utils.text import ngrams as grams_of
from datatrove.utils.text import simplify_text
from datatrove.utils.typeshelper import Languages
from datatrove.utils.word_tokenizers import load_word_tokenizer

SHARD_ROWS, BANDS, BAND_ROWS, WORDS, NGRAM = 2000, 24, 5, 3, 13


def main() -> None:
    file, known, work, processes = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    shutil.rmtree(work, ignore_errors=True)
    seconds: dict[str, float] = {}
    began = time.monotonic()

    def timed(step: str) -> None:
        nonlocal began
        seconds[step] = round(time.monotonic() - began, 1)
        began = time.monotonic()

    shards = split(file, work / "input")
    timed("read")

    def run(name: str, tasks: int, *steps: object) -> None:
        LocalPipelineExecutor(list(steps), tasks, min(processes, tasks), str(work / "logs" / name)).run()

    def writer(folder: str) -> JsonlWriter:
        return JsonlWriter(folder, compression=None)

    minhash = MinhashConfig(n_grams=WORDS, num_buckets=BANDS, hashes_per_bucket=BAND_ROWS)
    signatures, buckets, removed = (str(work / name) for name in ("signatures", "buckets", "removed"))
    reader = JsonlReader(str(work / "input"), text_key="problem")
    run("signatures", shards, reader, MinhashDedupSignature(signatures, minhash))
    run("buckets", BANDS, MinhashDedupBuckets(signatures, buckets, config=minhash))
    run("clusters", 1, MinhashDedupCluster(buckets, removed, config=minhash))
    kept = str(work / "deduplicate")
    run("filter", shards, reader, MinhashDedupFilter(removed), writer(kept))
    timed("deduplicate")
    ngrams = NGramsDecontConfig(n_grams=NGRAM, find_overlap_ngrams=False)
    index = work / "index"
    index.mkdir()
    texts = [json.loads(line)["problem"] for line in known.read_text().splitlines()]
    words, hashed = load_word_tokenizer(Languages.english).word_tokenize, create_hash_func(ngrams.hash_config)
    tokens = (words(simplify_text(text, ngrams.norm_config)) for text in texts)
    hashes = {hashed(" ".join(gram)) for some in tokens for gram in grams_of(some, NGRAM)}
    np.array(sorted(hashes), dtype=ngrams.hash_config.np_descr).tofile(index / "known.index.hashes")
    clean = str(work / "decontaminate")
    run(
        "decontaminate",
        shards,
        JsonlReader(kept),
        NGramsDecontFilter(str(index), ngrams),
        JsonlWriter(clean, compression=None),
    )
    timed("decontaminate")
    rows = {
        step: sum(f.read_bytes().count(b"\n") for f in (work / step).glob("*.jsonl"))
        for step in ("deduplicate", "decontaminate")
    }
    print(json.dumps({"seconds": seconds, "kept": rows}))


def split(file: Path, folder: Path) -> int:
    """Writes files of SHARD_ROWS rows, since datatrove's processes share out files; returns how many."""
    folder.mkdir(parents=True)
    lines = file.read_bytes().splitlines(keepends=True)
    for n, start in enumerate(range(0, len(lines), SHARD_ROWS)):
        (folder / f"{n:05d}.jsonl").write_bytes(b"".join(lines[start : start + SHARD_ROWS]))
    return -(-len(lines) // SHARD_ROWS)


if __name__ == "__main__":
    logger.remove()
    main()
