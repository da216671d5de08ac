"""Program: clean one file as the clean stage does, and print the counts. Arguments: examples, folder, rules as JSON."""

import json
import sys
from pathlib import Path

from tuneline.data import parallel


def main(examples: Path, folder: Path, chosen: str) -> None:
    parallel.begin()  # as the stage does
    from tuneline.benchmarks.corpus import SOURCE
    from tuneline.config.schema import CleanConfig, SourceConfig
    from tuneline.data.cleaning import clean_files
    from tuneline.data.writing import CleanOutputs

    rules = CleanConfig.model_validate_json(chosen)
    outputs = CleanOutputs(folder / "examples.jsonl", folder / "rejected.jsonl", folder / "clusters.jsonl")
    source = SourceConfig(
        name=SOURCE,
        path=examples.name,
        hub=None,
        format="auto",
        role="pool",
        columns={},
        system_prompt=None,
        task_prefix=None,
        weight=None,
        count=None,
    )
    tally = clean_files([examples], outputs, [source], rules, lambda rows: rows, lambda _: None)
    by_rule = tally.by_rule()
    print(json.dumps({"n_kept": tally.n_kept, "n_rejected": tally.n_rejected, "n_by_rule": dict(by_rule)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
