"""Program: quantise as plainly as llama.cpp's library allows, one call and no check. Arguments: source, out, type."""

import ctypes
import sys

import llama_cpp


def main(source: str, out: str, file_type: int) -> None:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = file_type
    if llama_cpp.llama_model_quantize(source.encode("utf-8"), out.encode("utf-8"), ctypes.byref(params)) != 0:
        sys.exit(f"{source}: llama.cpp cannot quantise it")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
