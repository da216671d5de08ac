"""The arrays of numbers about rows; what stands along each axis is said where one is made."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Hashes: TypeAlias = NDArray[np.uint64]
Indexes: TypeAlias = NDArray[np.int64]  # also counts, lengths and offsets
Flags: TypeAlias = NDArray[np.bool_]
