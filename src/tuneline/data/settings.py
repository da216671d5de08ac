"""What this room needs of its configuration, as shapes that the sections of params.yaml fit."""

from typing import Literal, Protocol

Format = Literal["alpaca", "sharegpt", "openai", "prompt_completion", "text"]
FormatOrAuto = Literal["auto", "alpaca", "sharegpt", "openai", "prompt_completion", "text"]


class HubDataset(Protocol):
    """A dataset on the hub at one commit."""

    @property
    def repo(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def config(self) -> str | None: ...
    @property
    def split(self) -> str: ...


class Source(Protocol):
    """One file or hub dataset: exactly one of `path` and `hub` is set."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str | None: ...
    @property
    def hub(self) -> HubDataset | None: ...
    @property
    def format(self) -> FormatOrAuto: ...
    @property
    def role(self) -> Literal["pool", "test"]: ...


class Switch(Protocol):
    """A rule without settings."""

    @property
    def enabled(self) -> bool: ...


class Length(Switch, Protocol):
    """Limits in characters, per message or text."""

    @property
    def min_chars(self) -> int: ...
    @property
    def max_chars(self) -> int: ...


class Pii(Switch, Protocol):
    """What to do with an address that was found."""

    @property
    def action(self) -> Literal["redact", "drop"]: ...


class Cleaning(Protocol):
    """One section per rule."""

    @property
    def encoding(self) -> Switch: ...
    @property
    def empties(self) -> Switch: ...
    @property
    def length(self) -> Length: ...
    @property
    def refusals(self) -> Switch: ...
    @property
    def pii(self) -> Pii: ...
    @property
    def exact_duplicates(self) -> Switch: ...
    @property
    def near_duplicates(self) -> Switch: ...


class Splitting(Protocol):
    """How groups of rows are drawn."""

    @property
    def val_fraction(self) -> float: ...
    @property
    def test_fraction(self) -> float: ...
    @property
    def salt(self) -> str: ...
    @property
    def on_contamination(self) -> Literal["drop", "fail"]: ...
