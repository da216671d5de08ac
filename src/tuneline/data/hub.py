"""Rows of a dataset on the hub, at one commit."""

from collections.abc import Iterable, Iterator
from typing import cast

from tuneline.config.schema import HubDatasetConfig
from tuneline.data.rows import BadRow, Row
from tuneline.data.tables import bounded_row
from tuneline.errors import DataError


def read_hub(hub: HubDatasetConfig) -> Iterator[Row | BadRow]:
    """Every row of the dataset's split. No code from the dataset's repository is ever run.

    Raises `DataError` when it cannot be had: no network, unknown name, revision, configuration or split, broken files.
    """
    place = f"{hub.repo}@{hub.revision[:12]}"
    number = 0
    for number, value in enumerate(_load(hub, place), 1):
        yield bounded_row(number, f"{place}:{number}", value)
    if number == 0:
        raise DataError(f"{place}: split {hub.split!r} holds no rows")


def _load(hub: HubDatasetConfig, place: str) -> Iterable[dict[str, object]]:
    import datasets  # type: ignore[import-untyped]  # no stubs; a second of import: only hub sources pay
    from datasets.exceptions import DatasetsError  # type: ignore[import-untyped]

    # datasets >= 4 has no trust_remote_code: it cannot run a repository's loading script at all.
    try:
        rows = datasets.load_dataset(hub.repo, name=hub.config, split=hub.split, revision=hub.revision)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise DataError(f"{place}: {_explained(error)}") from None
    return cast("Iterable[dict[str, object]]", rows)


def _explained(error: Exception) -> str:
    reason = " ".join(str(error).split())[:300]
    if isinstance(error, ConnectionError | TimeoutError) or "reach" in reason or "onnection" in reason:
        return (
            f"the hub cannot be reached ({reason}); connect once so that the dataset is cached,"
            " or download it and set data.sources[].path instead of hub"
        )
    return f"cannot be loaded ({reason}); check data.sources[].hub: repo, revision, config and split"
