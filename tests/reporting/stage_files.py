"""The files that the data stages write, from rows that a test chooses."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tuneline.data.record_files import as_line, write_examples, write_rejected
from tuneline.data.records import Example, Json, Message, Rejected, make_example, rejection
from tuneline.output import write_figures
from tuneline.reporting.describing import Description, Folders, describe

EMAIL = "ann.smith@example-mail.com"
PHONE = "555-123-4567"


def dialogue(source: str, line: int, question: str, answer: str) -> Example:
    return make_example(source, line, (Message("user", question), Message("assistant", answer)), None, {})


@dataclass
class Files:
    """Rows of every file, to be changed by a test before they are written."""

    ingested: list[Example]
    unread: list[Rejected]
    clean: list[Example]
    unclean: list[Rejected]
    clusters: list[dict[str, Json]]
    sides: dict[str, list[Example]]
    contaminated: list[Rejected]
    pairs: list[dict[str, Json]]
    with_teacher: list[Example] | None = None  # clean rows, less those dropped, and a teacher's; None: no teacher
    unusable: list[Rejected] = field(default_factory=list)  # of augment
    unclean_with_teacher: list[Rejected] = field(default_factory=list)
    clusters_with_teacher: list[dict[str, Json]] = field(default_factory=list)

    def write(self, folder: Path) -> Folders:
        write_rejected(folder / "ingested/rejected.jsonl", self.unread)
        write_examples(folder / "clean/examples.jsonl", self.clean)
        write_rejected(folder / "clean/rejected.jsonl", self.unclean)
        _write_objects(folder / "clean/clusters.jsonl", self.clusters)
        for side, rows in self.sides.items():
            write_examples(folder / f"splits/{side}.jsonl", rows)
        write_rejected(folder / "splits/rejected.jsonl", self.contaminated)
        _write_objects(folder / "splits/contamination.jsonl", self.pairs)
        reports = [folder / "ingest.json", folder / "clean.json"]
        for report, rows in zip(reports, (self.ingested, self.clean), strict=True):
            kept = Counter(row.source for row in rows)
            figures = {f"n_kept_from_{source}": kept[source] for source in kept}
            write_figures(report, {"n_kept": len(rows), "n_kept_from_none": 0} | figures)
        divided, augmented = folder / "clean/examples.jsonl", folder / "augmented"
        if self.with_teacher is not None:
            divided = augmented / "clean/examples.jsonl"
            self._write_augmented(augmented)
        return Folders(
            *(folder / "ingested", reports[0], folder / "clean", reports[1], folder / "splits"),
            divided=divided,
            taught=None if self.with_teacher is None else augmented,
        )

    def _write_augmented(self, folder: Path) -> None:
        write_examples(folder / "clean/examples.jsonl", self.with_teacher or [])
        write_rejected(folder / "rejected.jsonl", self.unusable)
        write_rejected(folder / "clean/rejected.jsonl", self.unclean_with_teacher)
        _write_objects(folder / "clean/clusters.jsonl", self.clusters_with_teacher)

    def described(self, folder: Path) -> Description:
        return describe(self.write(folder), count_words, lambda rows, _: rows)


def count_words(texts: list[str]) -> list[int]:
    """In place of a tokenizer."""
    return [len(text.split()) for text in texts]


def _write_objects(path: Path, rows: Iterable[dict[str, Json]]) -> None:
    path.write_bytes(b"".join(map(as_line, rows)))


def small_experiment() -> Files:
    """12 rows read: 2 cannot be read, 4 are not clean, 1 is contaminated; 2 train, 1 val, 1 test, 1 benchmark."""
    pool = [dialogue("pool", n, f"Is {n} even?", "yes" if n % 2 == 0 else "no") for n in range(1, 8)]
    test, benchmark = dialogue("test", 1, "Is 100 even?", "yes"), dialogue("bench", 1, "Is 4 even?", "yes")
    pool[5] = dialogue("pool", 6, f"Write to {EMAIL}", "I'm sorry, but I cannot.")
    private = dialogue("pool", 8, "Who\x1b[31m is\u202e it?", f"Call\n{PHONE} now")
    ingested = [*pool, private, test, benchmark]
    clean = [*pool[:4], test, benchmark]
    return Files(
        ingested=ingested,
        unread=[
            Rejected("pool", 9, "ingest", "reader", f"rows.jsonl:9: not JSON near {EMAIL}", f'{{"a": "\\n{PHONE}'),
            Rejected("pool", 10, "ingest", "format", "rows.jsonl:10: no 'messages'", {"phones": [PHONE], "x": EMAIL}),
        ],
        clean=clean,
        unclean=[
            rejection(pool[4], "clean", "near_duplicates", "a near copy of pool:3 (Jaccard similarity 0.875)"),
            rejection(pool[5], "clean", "refusals", "message 2 declines"),
            rejection(pool[6], "clean", "exact_duplicates", "a copy of pool:3"),
            rejection(private, "clean", "encoding", "message 1: a control character"),
        ],
        clusters=[
            {
                "kept": "pool:3",
                "kept_id": clean[2].id,
                "copies": [
                    {"place": "pool:5", "rule": "near_duplicates", "jaccard": 0.875},
                    {"place": "pool:7", "rule": "exact_duplicates", "jaccard": 1.0},
                ],
            }
        ],
        sides={"train": clean[:2], "val": clean[2:3], "test": [test]},
        contaminated=[rejection(clean[3], "split", "contamination", "it answers bench:1, a benchmark row")],
        pairs=[
            {
                "kind": "exact",
                "row": "pool:4",
                "row_id": clean[3].id,
                "held_out": "bench:1",
                "held_out_id": benchmark.id,
                "shared": f"mail {EMAIL} or call {PHONE[:9]}...",
            },
            {
                "kind": "near",
                "row": "pool:4",
                "row_id": clean[3].id,
                "held_out": "bench:1",
                "held_out_id": benchmark.id,
                "jaccard": 0.9,
            },
        ],
    )
