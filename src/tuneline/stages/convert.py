"""Convert the merged model to GGUF with llama.cpp's converter, and check that its tokenizer survived."""

from tuneline.config.params import read_params
from tuneline.entry import run, stage_arguments
from tuneline.export.gguf import convert
from tuneline.export.llama_cpp import llama_cpp_folder
from tuneline.model.tokenizers import load_tokenizer_from


def main() -> None:
    args = stage_arguments(__doc__, "merged", "out")
    params = read_params(args.params)
    n_texts = convert(
        args.merged,
        load_tokenizer_from(args.merged),
        args.out,
        outtype=params.export.outtype,
        name=params.model.name,
        converter=llama_cpp_folder(),
    )
    print(f"{args.out}: token ids are those of {args.merged} on {n_texts:,} varied strings")


if __name__ == "__main__":
    run(main)
