"""Convert the base model alone to GGUF, for adapters that stay in files of their own."""

from tuneline.config.params import read_params
from tuneline.entry import run, stage_arguments
from tuneline.export.base_gguf import convert_base
from tuneline.export.llama_cpp import llama_cpp_folder
from tuneline.export.quantize import gguf_type


def main() -> None:
    args = stage_arguments(__doc__, "out", names=("type",))
    params = read_params(args.params)
    n_texts = convert_base(
        params.model,
        args.out,
        gguf_type(args.type),
        outtype=params.export.outtype,
        converter=llama_cpp_folder(),
    )
    print(f"{args.out}: token ids are those of {params.model.name_or_path} on {n_texts:,} varied strings")


if __name__ == "__main__":
    run(main)
