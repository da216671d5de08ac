"""Sources, and how they are mixed."""

from collections.abc import Iterator

from tuneline.config.rules.wording import refused
from tuneline.config.schema import DataConfig, SourceConfig


def data_rules(data: DataConfig) -> Iterator[str]:
    names = [source.name for source in data.sources]
    for index, source in enumerate(data.sources):
        if source.name in names[:index]:
            yield refused(f"data.sources[{index}].name", source.name, "is a name no other source has")
        yield from _origin(f"data.sources[{index}]", source, data.tracked_path)
    if all(source.role != "pool" for source in data.sources):
        yield "data.sources: nothing to train on, allowed is at least one source with role pool"
    yield from _mixture(data)
    if all(source.path is None for source in data.sources) and not data.tracked_path.startswith("conf/data/"):
        allowed = "for hub datasets is their own file in conf/data/, which holds the pins"
        yield refused("data.tracked_path", data.tracked_path, allowed)


def _origin(key: str, source: SourceConfig, tracked: str) -> Iterator[str]:
    if (source.path is None) == (source.hub is None):
        found = "both null" if source.path is None else "both set"
        yield f"{key}: path and hub {found}, allowed is one of them; set the other to null"
    if source.path is not None and not f"{source.path}/".startswith(f"{tracked}/"):
        allowed = f"is a file in data.tracked_path ({tracked}); elsewhere DVC would not see it change"
        yield refused(f"{key}.path", source.path, allowed)


def _mixture(data: DataConfig) -> Iterator[str]:
    roles = [source.role for source in data.sources]
    fraction, n_rows = data.mixture.replay_fraction, data.mixture.n_rows
    for index, source in enumerate(data.sources):
        yield from _part_in_mixture(f"data.sources[{index}]", source)
    yield from _weights("pool", [source for source in data.sources if source.role == "pool"])
    yield from _weights("replay", [source for source in data.sources if source.role == "replay"])
    if n_rows is not None and not any(source.role == "pool" and source.weight is not None for source in data.sources):
        yield refused("data.mixture.n_rows", n_rows, "is null when no pool source has a weight; give them weights")
    if fraction > 0 and "replay" not in roles:
        allowed = "is 0.0 when no source has role replay; give the source of general rows that role"
        yield refused("data.mixture.replay_fraction", fraction, allowed)
    if fraction == 0 and "replay" in roles:
        allowed = f"is more than 0 when a source has role replay ({data.sources[roles.index('replay')].name})"
        yield refused("data.mixture.replay_fraction", fraction, f"{allowed}; raise it or take the source out")


def _part_in_mixture(key: str, source: SourceConfig) -> Iterator[str]:
    if source.weight is not None and source.count is not None:
        yield f"{key}: weight and count both set, allowed is one of them; set the other to null"
    if source.role in ("test", "benchmark"):
        for name, value in (("weight", source.weight), ("count", source.count)):
            if value is not None:
                yield refused(f"{key}.{name}", value, f"with role {source.role} is null; only training rows are mixed")
    if source.role == "replay" and source.count is not None:
        allowed = "with role replay is null: data.mixture.replay_fraction says how many; a weight shares them"
        yield refused(f"{key}.count", source.count, allowed)


def _weights(role: str, sources: list[SourceConfig]) -> Iterator[str]:
    weights = [source.weight for source in sources if source.weight is not None]
    if weights and not any(weights):
        yield f"data.sources: the weights with role {role} sum to 0, allowed is more; raise one or set all to null"
    if role == "replay" and weights and len(weights) < len(sources):
        yield "data.sources: some with role replay have a weight, allowed is all or none; null draws from all alike"
