"""MinHash signatures in bands: rows that share a band are worth comparing (Broder 1997; Leskovec et al., ch. 3).

With b bands of r rows a pair of Jaccard similarity s shares a band with probability 1 - (1 - s^r)^b.
"""

from itertools import starmap
from struct import Struct

import numpy as np

from tuneline.config.schema import NearDuplicatesRuleConfig
from tuneline.data.arrays import Hashes
from tuneline.data.shingles import Grams, mixed

_SEED = 1  # of the permutations; another one finds other candidates, with the same probabilities


def band_keys(grams: Grams, settings: NearDuplicatesRuleConfig) -> Hashes:
    """[n_texts, bands] For each text one key per band; equal keys in one column make two texts candidates.

    `grams` are the texts' runs of `ngram` words.
    """
    from rensa import RMinHash  # type: ignore[import-untyped]  # no stubs; imported here: only this rule pays for it

    n_texts, shape = len(grams.offsets) - 1, (settings.bands, settings.rows_per_band)
    n_permutations = shape[0] * shape[1]
    digests = RMinHash.digest_matrix_from_flat_token_hashes(grams.hashes, grams.offsets, n_permutations, _SEED)
    # through bytes: numpy takes a third longer to read lists of integers
    packed = b"".join(starmap(Struct(f"{n_permutations}I").pack, digests.to_rows()))
    signature = np.frombuffer(packed, np.uint32).astype(np.uint64).reshape(n_texts, *shape)
    keys = np.zeros((n_texts, shape[0]), np.uint64)
    for row in range(shape[1]):
        keys = mixed(keys + signature[:, :, row] + np.uint64(row + 1))
    return keys
