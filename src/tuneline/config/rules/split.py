"""Shares of the splits."""

from collections.abc import Iterator

from tuneline.config.rules.wording import refused
from tuneline.config.schema import Params


def split_rules(params: Params) -> Iterator[str]:
    val, test = params.split.val_fraction, params.split.test_fraction
    given = any(source.role == "test" for source in params.data.sources)
    if given and test > 0:
        allowed = "is 0.0 when a source has role test; choose split=given_test"
        yield refused("split.test_fraction", test, allowed)
    if not given and test == 0:
        allowed = "is more than 0 when no source has role test; choose split=holdout"
        yield refused("split.test_fraction", test, allowed)
    if val + test >= 1:
        allowed = f"is less than 1 - split.test_fraction = {1 - test:g}; something has to be left to train on"
        yield refused("split.val_fraction", val, allowed)
