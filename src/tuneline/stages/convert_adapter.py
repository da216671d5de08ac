"""Convert the adapter alone to GGUF, with the scale that llama.cpp has to give it."""

from tuneline.config.params import read_params
from tuneline.entry import run, stage_arguments
from tuneline.export.adapter_gguf import convert_adapter
from tuneline.export.llama_cpp import llama_cpp_folder


def main() -> None:
    args = stage_arguments(__doc__, "adapter", "out")
    params = read_params(args.params)
    n_matrices = convert_adapter(args.adapter, params.model, args.out, converter=llama_cpp_folder())
    print(f"{args.out}: {n_matrices} matrices of {args.adapter}")


if __name__ == "__main__":
    run(main)
