"""Quantise the converted model to one of llama.cpp's types, precise where the importance matrix says it matters."""

from tuneline.entry import run, stage_arguments
from tuneline.export.importance import read_importance
from tuneline.export.quantize import describe, quant_type, quantize


def main() -> None:
    args = stage_arguments(__doc__, "source", "imatrix", "out", names=("quant",))
    quant = quant_type(args.quant)
    quantize(args.source, args.out, quant, read_importance(args.imatrix))
    print(describe(args.out, quant))


if __name__ == "__main__":
    run(main)
