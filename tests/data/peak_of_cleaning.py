"""Program: clean one file and print the rows kept and this process's peak memory. Arguments: file, folder, rules."""

import sys
from pathlib import Path

from tuneline.config.schema import CleanConfig, SourceConfig
from tuneline.data.cleaning import clean_files
from tuneline.data.writing import CleanOutputs


def peak_mib() -> float:
    """VmHWM: unlike ru_maxrss, it does not begin with the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    given, folder = Path(sys.argv[1]), Path(sys.argv[2])
    source = SourceConfig(
        name="pool", path="pool.jsonl", hub=None, format="auto", role="pool", columns={}, system_prompt=None,
        task_prefix=None, weight=None, count=None,
    )  # fmt: skip
    outputs = CleanOutputs(*(folder / name for name in ("kept", "gone", "clusters")))
    rules = CleanConfig.model_validate_json(sys.argv[3])
    tally = clean_files([given], outputs, [source], rules, lambda items: items, lambda _: None)
    print(tally.n_kept, peak_mib())
