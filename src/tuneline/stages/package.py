"""Put together what is deployed: the GGUF, Ollama's Modelfile, the model card and the lineage of all of it."""

from tuneline.config.params import read_params
from tuneline.entry import run, stage_arguments
from tuneline.export.commit import commit_of
from tuneline.export.experiment import Experiment
from tuneline.export.package import Inputs, package, read_reports
from tuneline.export.picking import pick
from tuneline.output import atomic_folder


def main() -> None:
    measured = (
        "ingest_report", "clean_report", "split_report", "train_report", "evaluated", "merge_report",
        "evaluated_merged", "verified", "augment_report", "clean_augmented_report",
    )  # fmt: skip
    models = ("gguf", "merged", "adapter", "sources", "base")
    args = stage_arguments(__doc__, *models, "data", "raw", *measured, "out", lists=("committed",))
    params = read_params(args.params)
    figures = read_reports(
        ingest=args.ingest_report,
        clean=args.clean_report,
        split=args.split_report,
        train=args.train_report,
        evaluated=args.evaluated,
        merge=args.merge_report,
        merged=args.evaluated_merged,
        verified=args.verified,
        types=params.export.verified,
        lora_base=params.export.lora_base,
        taught=(args.augment_report, args.clean_augmented_report) if params.augment.stages else (),
    )
    shipped = pick(params.export.pick, params.export.verified, figures.verified, params.export.budgets)
    experiment = Experiment(
        seed=params.seed,
        model=params.model,
        method=params.method,
        lora=params.lora,
        quantization=params.quantization,
        recipe=params.recipe,
        data=params.data,
        clean=params.clean,
        augment=params.augment,
        split=params.split,
        train=params.train,
        hardware=params.hardware,
        eval=params.eval,
        merge=params.merge,
        export=params.export,
        shipped=shipped,
        commit=commit_of(args.committed),
    )
    with atomic_folder(args.out) as folder:
        sources = None if params.merge.combine is None else args.sources
        inputs = Inputs(args.raw, args.data, args.base, args.adapter, args.merged, sources)
        package(experiment, figures, args.gguf / f"{shipped}.gguf", inputs, folder)


if __name__ == "__main__":
    run(main)
