"""Measure on training rows how much each input channel matters, for quants made with that importance matrix."""

from tuneline.config.params import read_params
from tuneline.data.record_files import read_examples
from tuneline.entry import run, stage_arguments
from tuneline.export.calibration import calibration_rows, calibration_text, compute
from tuneline.export.llama_cpp import installed_tool
from tuneline.model.tokenizers import load_tokenizer_from
from tuneline.output import write_text


def main() -> None:
    args = stage_arguments(__doc__, "train", "merged", "source", "text", "out")
    params = read_params(args.params)
    imatrix = params.export.imatrix
    assert imatrix is not None, "export.calibrated is empty without export.imatrix; config.rules holds it"
    tool = installed_tool("llama-imatrix")  # first: without it the text is of no use
    rows = calibration_rows(read_examples(args.train), imatrix.n_rows)
    write_text(args.text, calibration_text(load_tokenizer_from(args.merged), rows))
    compute(tool, args.source, args.text, args.out, n_ctx=imatrix.n_ctx)
    print(f"{args.out}: importance matrix of {len(rows):,} training rows")


if __name__ == "__main__":
    run(main)
