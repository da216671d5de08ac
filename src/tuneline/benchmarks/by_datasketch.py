"""Program: near duplicates with datasketch 2. Arguments: examples, words in a run, bands, rows per band, Jaccard.

MinHash and LSH as its documentation has them, with the quick xxHash; candidates are verified on sets of strings.
"""

import json
import re
import sys
from collections.abc import Iterator
from itertools import tee
from pathlib import Path

import msgspec
import xxhash
from datasketch import MinHash, MinHashLSH  # type: ignore[import-not-found, import-untyped, unused-ignore]


def main(path: Path, ngram: int, bands: int, rows_per_band: int, min_jaccard: float) -> None:
    index = MinHashLSH(num_perm=bands * rows_per_band, params=(bands, rows_per_band))
    kept: dict[int, str] = {}
    duplicates: list[int] = []
    read, hashed = tee(texts(path))  # the file is read once
    batches = ([run.encode() for run in runs(text, ngram)] for text in hashed)
    hashes = MinHash.generator(batches, num_perm=bands * rows_per_band, hashfunc=xxhash.xxh32_intdigest)
    for number, (text, signature) in enumerate(zip(read, hashes, strict=True)):
        candidates = index.query(signature)
        if candidates and any(jaccard(text, kept[other], ngram) >= min_jaccard for other in candidates):
            duplicates.append(number)
        else:
            index.insert(number, signature, check_duplication=False)
            kept[number] = text
    print(json.dumps({"n_duplicates": len(duplicates), "n_rows": len(kept) + len(duplicates)}))


def texts(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for line in file:
            yield "\n".join(message["content"] for message in msgspec.json.decode(line)["messages"])


def runs(text: str, n: int) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[start : start + n]) for start in range(max(1, len(words) - n + 1))}


def jaccard(one: str, other: str, n: int) -> float:
    a, b = runs(one, n), runs(other, n)
    return len(a & b) / len(a | b)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
