"""Verified MinHash on planted near-duplicates: precision, recall and MB per CPU-second, beside a peer, in one run.

    python benchmarks/minhash.py [--megabytes 80] [--out benchmarks/results/minhash.json]

The corpus: documents of lines drawn at random from the Python standard library, so that unrelated ones share phrases; about a
third are copies of another one with a known number of words replaced, from untouched to half. Truth comes from plain Python
sets, without a line of the code under test: all pairs inside each planted family, all pairs of a sample of the corpus, and each
document that goes beside the one that stays for it. The peer (datasketch, when it can be imported) gets the same documents,
shingles, threshold and number of hash functions, on a part of the corpus because it is slow.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shoestring.data import documents, engine, exact, gopher, minhash, quality, stdlib
from shoestring.measure import threads

THRESHOLD, SHINGLE = 0.8, 5
Pair = tuple[int, int]


def main() -> None:
    """Make the corpus, measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--megabytes", type=float, default=80)
    options.add_argument("--peer-megabytes", type=float, default=8)
    options.add_argument("--sample", type=int, default=3000, help="documents of the all-pairs sample")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "minhash.json")
    given = options.parse_args()
    texts, family = planted(given.megabytes * 1e6, given.seed)
    size = sum(len(text.encode()) for text in texts)
    print(f"{len(texts):,} documents, {size / 1e6:.1f} MB, {len(texts) - len(set(family)):,} of them copies")
    with tempfile.TemporaryDirectory() as folder:
        path = write(texts, Path(folder) / documents.FILE)
        engine.read(path).limit(8).to_arrow()  # start the runner's threads before the clock
        found, ours = timed(lambda: minhash.find(engine.read(path), THRESHOLD, SHINGLE))
        rows = {"shoestring": rate(size, ours) | score(texts, family, found, given)}
        others = other_steps(path, size)
    rows |= peer(texts, given.peer_megabytes * 1e6, found)
    record = {
        "what": f"near-duplicates, Jaccard >= {THRESHOLD} of {SHINGLE}-word shingles",
        "corpus": {"documents": len(texts), "bytes": size, "copies": len(texts) - len(set(family)), "seed": given.seed},
        "rows": rows,
        "other_steps": others,
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"processor": processor(), "threads": threads(), "load": os.getloadavg()[0]},
        "versions": {name: version(name) for name in ("daft", "numpy", "pyarrow")} | {"python": platform.python_version()},
    }
    print(json.dumps(record, indent=1))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(record, indent=1) + "\n")


def planted(size: float, seed: int) -> tuple[list[str], list[int]]:
    """Documents, and the family of each (the number of its original)."""
    draw = random.Random(seed)
    lines = [line.strip() for document in stdlib.read() for line in document.text.split("\n") if len(line.split()) > 2]
    texts: list[str] = []
    family: list[int] = []
    total = 0
    while total < size:
        if texts and draw.random() < 0.33:
            original = draw.randrange(len(texts))
            words = texts[original].split(" ")
            # One changed word changes five shingles: these shares span similarities from 1 down to about 0.1.
            for _ in range(int(len(words) * draw.choice([0, 0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.05, 0.5]))):
                words[draw.randrange(len(words))] = f"changed{draw.randrange(10**6)}"
            texts.append(" ".join(words))
            family.append(family[original])
        else:
            texts.append("\n".join(draw.choices(lines, k=draw.randrange(20, 200))))
            family.append(len(texts) - 1)
        total += len(texts[-1])
    return texts, family


def score(texts: list[str], family: list[int], found: minhash.Found, given: argparse.Namespace) -> dict[str, Any]:
    """Precision: of what goes, how much is truly similar to the one that stays for it. Recall: of truly similar pairs, how many
    are not kept whole. The truth comes from plain sets."""
    kept = found.kept.tolist()
    gone = [(document, stays) for document, stays in enumerate(kept) if document != stays]
    right = sum(bool(true_pairs(texts, [pair])) and kept[pair[1]] == pair[1] for pair in gone)
    planted_pairs = [p for members in groups(family) for p in true_pairs(texts, itertools.combinations(members, 2))]
    draw = random.Random(given.seed + 1)
    sample = sorted(draw.sample(range(len(texts)), min(given.sample, len(texts))))
    sample_pairs = all_pairs(texts, sample)
    return {
        "precision": right / max(1, len(gone)),
        "recall_planted": recall(planted_pairs, kept),
        "planted_pairs": len(planted_pairs),
        "recall_sample": recall(sample_pairs, kept),
        "sample_pairs": len(sample_pairs),
        "candidates": found.candidates,
        "dropped": len(gone),
        "precision_of_candidates": len(gone) / max(1, found.candidates),
    }


def recall(pairs: list[Pair], kept: list[int]) -> float:
    """Of similar pairs, the share of which not both stay."""
    return sum(kept[i] != i or kept[j] != j for i, j in pairs) / max(1, len(pairs))


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Word shingles in plain Python."""
    words = text.split()
    return frozenset(tuple(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1)))


def true_pairs(texts: list[str], pairs: Iterable[Pair]) -> list[Pair]:
    """Those whose exact similarity reaches the threshold."""
    sets: dict[int, frozenset[tuple[str, ...]]] = {}
    kept = []
    for pair in pairs:
        left, right = (sets[i] if i in sets else sets.setdefault(i, shingles(texts[i])) for i in pair)
        if len(left & right) >= THRESHOLD * len(left | right):
            kept.append(pair)
    return kept


def all_pairs(texts: list[str], chosen: list[int]) -> list[Pair]:
    """All similar pairs of some documents, by counting shared shingles through an index of shingles."""
    sets = [shingles(texts[i]) for i in chosen]
    index: dict[tuple[str, ...], list[int]] = {}
    pairs = []
    for place, own in enumerate(sets):
        shared = np.bincount([other for s in own for other in index.get(s, ())], minlength=place + 1)
        similar = (o for o in np.flatnonzero(shared) if shared[o] >= THRESHOLD * (len(own) + len(sets[o]) - shared[o]))
        pairs += [(chosen[int(other)], chosen[place]) for other in similar]
        for s in own:
            index.setdefault(s, []).append(place)
    return pairs


def groups(labels: list[int]) -> list[list[int]]:
    """Members of each label that has more than one."""
    members: dict[int, list[int]] = {}
    for item, label in enumerate(labels):
        members.setdefault(label, []).append(item)
    return [m for m in members.values() if len(m) > 1]


def other_steps(path: Path, size: int) -> dict[str, Any]:
    """MB per CPU-second of the other steps on the same corpus; reading alone is the floor."""
    source = pq.read_table(path, columns=["source"])["source"][0].as_py()
    _, reading = timed(lambda: engine.read(path).to_arrow())
    _, copies = timed(lambda: exact.duplicates(engine.read(path)))
    _, judged = timed(lambda: quality.failures(engine.read(path), [source]))
    return {
        "read": rate(size, reading),
        "exact": rate(size, copies),
        f"gopher ({len(gopher.RULES)} rules)": rate(size, judged),
    }


def peer(texts: list[str], size: float, found: minhash.Found) -> dict[str, Any]:
    """datasketch's MinHash LSH on the first documents: every pair that it proposes counts as its answer."""
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError:
        print("datasketch is not installed: no peer in this run", file=sys.stderr)
        return {}
    count = int(np.searchsorted(np.cumsum([len(t) for t in texts]), size)) + 1
    some = texts[:count]

    def run() -> set[Pair]:
        bands, rows = minhash.bands_and_rows(THRESHOLD)
        index = MinHashLSH(params=(bands, rows), num_perm=bands * rows)
        pairs = set()
        for i, text in enumerate(some):
            signature = MinHash(num_perm=bands * rows)
            signature.update_batch([" ".join(s).encode() for s in shingles(text)])
            pairs |= {(j, i) for j in index.query(signature)}
            index.insert(i, signature)
        return pairs

    pairs, used = timed(run)
    truth = set(all_pairs(some, list(range(count))))
    return {
        "datasketch": rate(sum(len(t.encode()) for t in some), used)
        | {
            "documents": count,
            "precision_pairs": len(pairs & truth) / max(1, len(pairs)),
            "recall_pairs": len(pairs & truth) / max(1, len(truth)),
            "ours_recall_pairs": recall(sorted(truth), found.kept.tolist()),
            "version": version("datasketch"),
        }
    }


def write(texts: list[str], path: Path) -> Path:
    """The documents as a corpus holds them."""
    batch = pa.RecordBatch.from_pydict(
        {
            "id": [str(i) for i in range(len(texts))],
            "order": list(range(len(texts))),
            "text": texts,
            "source": ["planted"] * len(texts),
            "metadata": pa.nulls(len(texts), pa.string()),
        },
        schema=documents.SCHEMA,
    )
    documents.write([batch], path)
    return path


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """The result, and the CPU-seconds (of all threads) and wall seconds it took."""
    before, start = cpu(), time.perf_counter()
    result = work()
    return result, {"cpu_seconds": cpu() - before, "seconds": time.perf_counter() - start}


def rate(size: int, used: dict[str, float]) -> dict[str, float]:
    """With megabytes per CPU-second."""
    return {"mb_per_cpu_second": size / 1e6 / used["cpu_seconds"]} | used


def cpu() -> float:
    """CPU-seconds of this process and all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
