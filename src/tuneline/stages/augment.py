"""Let a teacher model write rows from clean ones: new rows with their origin, rejected answers, counts. Off: none."""

from functools import partial

from tuneline.config.params import read_params
from tuneline.data.progress import watched
from tuneline.data.record_files import write_examples, write_rejected
from tuneline.data.sides import is_trained_on
from tuneline.entry import run, stage_arguments
from tuneline.output import write_figures
from tuneline.teacher.answers import metrics, new_rows
from tuneline.teacher.asking import ask_all
from tuneline.teacher.cache import ReplyCache
from tuneline.teacher.jobs import plan


def main() -> None:
    args = stage_arguments(__doc__, "examples", "templates", "cache", "out", "rejected", "metrics")
    params = read_params(args.params)
    augment, sources = params.augment, params.data.sources
    may_be_shown = partial(is_trained_on, settings=params.split)
    tasks = plan(args.examples, args.templates, augment, sources, params.seed, may_be_shown)
    requests = [task.request for task in tasks]
    answers = ask_all(
        requests, augment.endpoint, ReplyCache(args.cache), lambda rows, n_total: watched(rows, "teacher", n_total)
    )
    print(answers.summary())

    rows = new_rows(tasks, answers.replies)
    # First, and also when the check fails: a failed run leaves the reasons behind, but no rows.
    write_rejected(args.rejected, rows.rejected)
    rows.check(augment.max_rejected_fraction, args.rejected)
    write_examples(args.out, rows.kept)
    figures = metrics(rows, tasks, answers.replies, augment.jobs, sources)
    write_figures(args.metrics, figures)


if __name__ == "__main__":
    run(main)
