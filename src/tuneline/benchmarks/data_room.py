"""The data room measured in one run: cleaning, its memory and scaling, near duplicates beside other libraries."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import msgspec

from tuneline.benchmarks.corpus import SEED, chat_rows, write_rows
from tuneline.benchmarks.planted import pairs_of, planted_rows, score
from tuneline.benchmarks.processes import Measured, run
from tuneline.config.schema import CleanConfig, NearDuplicatesRuleConfig
from tuneline.data.records import Json
from tuneline.errors import EnvironmentProblem

Figures = dict[str, float | int]
Timed = Callable[[], Measured]

_PROGRAMS = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    n_rows: int  # cleaned
    n_peer_rows: int  # deduplicated by each library
    n_pairs: int  # planted
    n_repeats: int  # runs of each kind, in turn; the median counts


@dataclass(frozen=True, slots=True)
class Rules:
    """What is measured: a whole set of rules, and the near duplicates of it alone."""

    whole: CleanConfig
    off: CleanConfig  # every rule switched off

    @property
    def near(self) -> CleanConfig:
        # The other libraries compare whole rows only.
        rule = self.whole.near_duplicates.model_copy(update={"min_answer_jaccard": 0.0})
        return self.off.model_copy(update={"near_duplicates": rule})


def clean_figures(rules: Rules, sizes: Sizes, folder: Path) -> Figures:
    """Speed with one worker and with two, in turn, and the peak memory in a run of its own."""
    with _rows_file(sizes.n_rows, folder) as path, _scratch(folder) as out:
        runs = {f"{n}_workers": _cleaning(path, out, rules.whole, n) for n in (1, 2)}
        seconds = _medians(runs, sizes.n_repeats)[0]
        sampled = _clean(path, out, rules.whole, 2, is_memory_sampled=True)
        size = path.stat().st_size
    figures = {f"clean_rows_per_s_{name}": sizes.n_rows / taken for name, taken in seconds.items()}
    return (
        figures
        | _counts(sampled)
        | {
            "clean_n_rows": sizes.n_rows,
            "clean_input_mib": size / 2**20,
            "clean_scaling": seconds["1_workers"] / seconds["2_workers"],
            "clean_peak_memory_mib": sampled.peak_bytes / 2**20,
            "clean_peak_memory_of_input": sampled.peak_bytes / size,
        }
    )


def near_duplicate_figures(rules: Rules, sizes: Sizes, folder: Path, datatrove: Path | None) -> Figures:
    """From rows on disk to the set of duplicates, on the same rows; ratios of the medians.

    Each runs in one process, ours with two workers as well (whose processor time nobody sums). It also writes the rows
    that are left. `datatrove` is the interpreter of an environment with that library; None: it is not measured. Its
    figure is per core: its tasks share out whole files, and these rows are in one. datasketch has no processes.
    """
    near = rules.near
    with _rows_file(sizes.n_peer_rows, folder) as path, _scratch(folder) as out:
        runs = {"tuneline": _cleaning(path, out, near, 1), "tuneline_2_workers": _cleaning(path, out, near, 2)}
        runs["datasketch"] = _peer(sys.executable, "by_datasketch.py", path, near.near_duplicates)
        if datatrove is not None:
            runs["datatrove"] = _peer(str(datatrove), "by_datatrove.py", path, near.near_duplicates)
        outputs = {name: timed().output for name, timed in runs.items()}  # also warms the file cache
        seconds, cpu_seconds = _medians(runs, sizes.n_repeats)
    figures: Figures = {"near_n_rows": sizes.n_peer_rows}
    for name, taken in seconds.items():
        figures[f"near_rows_per_s_{name}"] = sizes.n_peer_rows / taken
        figures[f"near_n_duplicates_{name}"] = _number(outputs[name], "n_rejected", "n_duplicates")
    for name in (name for name in runs if not name.startswith("tuneline")):
        figures[f"near_speed_ratio_to_{name}"] = seconds[name] / seconds["tuneline"]
        figures[f"near_speed_ratio_of_2_workers_to_{name}"] = seconds[name] / seconds["tuneline_2_workers"]
        figures[f"near_cpu_ratio_to_{name}"] = cpu_seconds[name] / cpu_seconds["tuneline"]
    return figures


def planted_figures(rules: Rules, sizes: Sizes, folder: Path) -> Figures:
    """Recall and precision on pairs whose similarity is known."""
    settings = rules.whole.near_duplicates
    rows = list(planted_rows(sizes.n_pairs, SEED, settings.min_jaccard))
    with _scratch(folder) as out:
        path = out / "rows.jsonl"
        write_rows(path, (example for pair in rows for example in pair))
        _clean(path, out, rules.near, 2, is_memory_sampled=False)
        clusters = [msgspec.json.decode(line) for line in (out / "clusters.jsonl").read_bytes().splitlines()]
    found = score(pairs_of(rows, settings.ngram), clusters, settings.min_jaccard)
    return {
        "planted_n_similar_pairs": found.n_similar,
        "planted_n_decoys": found.n_decoys,
        "planted_recall": found.recall,
        "planted_precision": found.precision,
    }


def check_datasketch() -> None:
    """Raises `EnvironmentProblem` before anything is measured."""
    if find_spec("datasketch") is None:
        raise EnvironmentProblem("datasketch is not installed; run `pip install -e '.[benchmark]'`")


def _medians(runs: Mapping[str, Timed], n_repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds and processor seconds of each. They take turns, so that a slow minute of the machine hits all."""
    measured: dict[str, list[Measured]] = {name: [] for name in runs}
    for _ in range(n_repeats):
        for name, timed in runs.items():
            measured[name].append(timed())
    seconds = {name: median(one.seconds for one in of) for name, of in measured.items()}
    return seconds, {name: median(one.cpu_seconds for one in of) for name, of in measured.items()}


def _cleaning(path: Path, out: Path, rules: CleanConfig, n_workers: int) -> Timed:
    return lambda: _clean(path, out, rules, n_workers, is_memory_sampled=False)


def _clean(path: Path, out: Path, rules: CleanConfig, n_workers: int, *, is_memory_sampled: bool) -> Measured:
    chosen = rules.model_copy(update={"workers": n_workers}).model_dump_json()
    for left_behind in out.glob("*.jsonl"):  # DVC removes a stage's outputs as well, before it runs the stage
        if left_behind != path:
            left_behind.unlink()
    program: list[str | Path] = [sys.executable, "-m", "tuneline.benchmarks.clean_rows", path, out, chosen]
    return run(program, is_memory_sampled=is_memory_sampled)


def _peer(python: str, program: str, path: Path, settings: NearDuplicatesRuleConfig) -> Timed:
    numbers = [str(number) for number in (settings.ngram, settings.bands, settings.rows_per_band)]
    if program == "by_datasketch.py":
        numbers.append(str(settings.min_jaccard))
    return lambda: run([python, _PROGRAMS / program, path, *numbers], is_memory_sampled=False)


def _counts(measured: Measured) -> Figures:
    by_rule = measured.output["n_by_rule"]
    assert isinstance(by_rule, dict)
    counts: Figures = {f"clean_n_rejected_by_{rule}": n for rule, n in by_rule.items() if isinstance(n, int)}
    return counts | {"clean_n_kept": _number(measured.output, "n_kept")}


def _number(output: Mapping[str, Json], *names: str) -> int:
    (value,) = (output[name] for name in names if name in output)
    assert isinstance(value, int)
    return value


@contextmanager
def _rows_file(n_rows: int, folder: Path) -> Iterator[Path]:
    with _scratch(folder) as scratch:
        path = scratch / "rows.jsonl"
        write_rows(path, chat_rows(n_rows, SEED))
        yield path


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    with TemporaryDirectory(dir=folder) as name:
        yield Path(name)
