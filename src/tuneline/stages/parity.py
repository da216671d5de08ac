"""Put the figures of every link together, from adapter to each GGUF: table, picture, and what is outside its budget."""

from tuneline.config.params import read_params
from tuneline.entry import run, stage_arguments
from tuneline.export.chain import chain_csv, chain_markdown, chain_metrics, check_chain, read_chain, sizes_csv
from tuneline.export.chain_picture import draw_chain
from tuneline.output import write_figures, write_text


def main() -> None:
    """Read the reports of evaluate, merge, evaluate_merged and verify; write the chain's."""
    paths = ("evaluated", "merge_report", "evaluated_merged", "verified")
    args = stage_arguments(__doc__, *paths, "metrics", "table", "sizes", "picture", "text")
    params = read_params(args.params)
    confidence, export = params.eval.confidence, params.export
    links = read_chain(
        args.evaluated,
        args.merge_report,
        args.evaluated_merged,
        args.verified,
        export.verified,
        export.budgets,
        export.lora_base,
    )
    write_text(args.text, chain_markdown(links, confidence))
    write_text(args.table, chain_csv(links, confidence))
    write_text(args.sizes, sizes_csv(links))
    draw_chain(args.picture, links, confidence)
    write_figures(args.metrics, chain_metrics(links, confidence))
    check_chain(
        links, outtype=export.outtype, all_within_budget=export.all_within_budget
    )  # last, so that a failure can be looked into


if __name__ == "__main__":
    run(main)
