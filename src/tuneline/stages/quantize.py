"""Quantise the converted model to one of llama.cpp's types."""

from tuneline.entry import run, stage_arguments
from tuneline.export.quantize import describe, quant_type, quantize


def main() -> None:
    args = stage_arguments(__doc__, "source", "out", names=("quant",))
    quant = quant_type(args.quant)
    quantize(args.source, args.out, quant)
    print(describe(args.out, quant))


if __name__ == "__main__":
    run(main)
