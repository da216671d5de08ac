"""Program: near duplicates with datatrove 0.10. Arguments: examples, words in a run, bands, rows per band.

Its three MinHash blocks up to the set of duplicates, one process; it verifies no candidate. Its dependencies do not
go together with ours, so it runs in an environment of its own and imports nothing of this project.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor  # type: ignore[import-not-found, unused-ignore]
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature  # type: ignore[import-not-found, unused-ignore]
from datatrove.pipeline.dedup.minhash import MinhashConfig  # type: ignore[import-not-found, unused-ignore]
from datatrove.pipeline.readers import JsonlReader  # type: ignore[import-not-found, unused-ignore]
from datatrove.utils.hashing import HashConfig  # type: ignore[import-not-found, unused-ignore]

_BYTES_PER_NUMBER = 4  # of a row, in the file of those to remove


def main(path: Path, ngram: int, bands: int, rows_per_band: int) -> None:
    config = MinhashConfig(
        n_grams=ngram, num_buckets=bands, hashes_per_bucket=rows_per_band, hash_config=HashConfig(precision=64)
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reader = JsonlReader(str(path.parent), glob_pattern=path.name, adapter=document)
        signatures, buckets, removed = (str(folder / step) for step in ("signatures", "buckets", "removed"))
        steps = (
            (1, [reader, MinhashDedupSignature(output_folder=signatures, config=config)]),
            (bands, [MinhashDedupBuckets(input_folder=signatures, output_folder=buckets, config=config)]),
            (1, [MinhashDedupCluster(input_folder=buckets, output_folder=removed, config=config)]),
        )
        for number, (n_tasks, pipeline) in enumerate(steps):
            LocalPipelineExecutor(pipeline, tasks=n_tasks, workers=1, logging_dir=str(folder / f"log{number}")).run()
        n_bytes = sum(file.stat().st_size for file in Path(removed).glob("*.remove"))
    print(json.dumps({"n_duplicates": n_bytes // _BYTES_PER_NUMBER}))


def document(_reader: object, row: dict[str, Any], path: str, number: int | str) -> dict[str, Any]:
    return {"text": "\n".join(message["content"] for message in row["messages"]), "id": f"{path}/{number}"}


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
