"""Stage describe: the data report. What every stage did to the rows, lengths, balance, copies, rejected samples."""

from tuneline.config.params import read_params
from tuneline.data.progress import watched
from tuneline.data.token_counts import token_counter
from tuneline.entry import run, stage_arguments
from tuneline.output import atomic_folder
from tuneline.reporting.describing import Folders, describe, write_report


def main() -> None:
    """Read what the data stages wrote, write the folder of the report."""
    paths = ("ingested", "ingest_report", "clean", "clean_report", "splits", "divided", "taught", "tokenizer", "out")
    args = stage_arguments(__doc__, *paths)
    params = read_params(args.params)
    taught = args.taught if params.augment.stages else None
    folders = Folders(
        *(args.ingested, args.ingest_report, args.clean, args.clean_report, args.splits, args.divided), taught
    )
    found = describe(folders, token_counter(args.tokenizer), lambda rows, what: watched(rows, what, None))
    with atomic_folder(args.out) as folder:
        write_report(found, folder)


if __name__ == "__main__":
    run(main)
