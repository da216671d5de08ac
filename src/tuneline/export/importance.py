"""The importance matrix: how strongly each input channel of each weight matrix is used on the project's own rows.

Quantisation then spends its precision where the model's inputs are large (llama.cpp, tools/imatrix/README.md).
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuneline.errors import ModelError
from tuneline.export.header import read_floats

Importance = dict[str, NDArray[np.float32]]

_SUMS, _COUNTS = ".in_sum2", ".counts"  # llama.cpp, common/imatrix-loader.cpp


def read_importance(path: Path) -> Importance:
    """Mean square of each input channel, by the name of the weight matrix; the experts of a matrix one after the other.

    Sums and counts are what the file holds; an expert that no token reached counts as 1 everywhere, as in llama.cpp's
    tools/quantize/quantize.cpp. Raises `ModelError` when the file is no such matrix or holds no finite number.
    """
    tensors = read_floats(path)
    sums = {name.removesuffix(_SUMS): values for name, values in tensors.items() if name.endswith(_SUMS)}
    try:
        means = {name: _mean(values, tensors[name + _COUNTS]) for name, values in sums.items()}
    except KeyError as error:
        raise ModelError(f"{path}: sums without counts ({error}); compute the importance matrix again") from None
    bad = sorted(name for name, mean in means.items() if not np.isfinite(mean).all())
    if bad or not means:
        what = f"not finite for {', '.join(bad[:3])}" if bad else "holds no importance of any weight"
        raise ModelError(f"{path}: {what}; compute the importance matrix again")
    return means


def _mean(sums: NDArray[np.float32], counts: NDArray[np.float32]) -> NDArray[np.float32]:
    sums_EC, counts_E1 = sums.reshape(counts.size, -1), counts.reshape(-1, 1)
    mean_EC = np.divide(sums_EC, counts_E1, out=np.ones_like(sums_EC), where=counts_E1 > 0)
    return mean_EC.reshape(-1)
