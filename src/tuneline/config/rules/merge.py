"""What is merged, and how several of them become one."""

from collections.abc import Iterator
from typing import get_args

from tuneline.config.rules.wording import listed, refused
from tuneline.config.schema import AdapterCombination, CombineConfig, ModelCombination, Params

# Which options a way to combine reads; the others have to be null.
_COMBINE_OPTIONS: dict[str, tuple[str, ...]] = {
    "ties": ("density", "majority_sign_method"),
    "dare_ties": ("density", "majority_sign_method"),
    "dare_linear": ("density",),
    "magnitude_prune": ("density",),
}
_COMBINATIONS = {"adapter": get_args(AdapterCombination), "full": get_args(ModelCombination)}


def merge_rules(params: Params) -> Iterator[str]:
    merge, phase = params.merge, f"models/phase/{params.recipe.final}"
    if merge.combine is None:
        if (merge.tuned != phase and params.recipe.final in params.recipe.phases) or merge.stages:
            yield f"merge.combine: null, allowed with it is merge.tuned {phase} and no stages; choose merge=default"
        return
    if merge.tuned != "models/combined" or not merge.stages:
        yield "merge.tuned: allowed beside merge.combine is models/combined, with merge.stages [combined]"
    yield from _combine(merge.combine)
    for index, source in enumerate(merge.combine.sources):
        if source.path != phase and not f"{source.path}/".startswith(f"{merge.tracked_path}/"):
            allowed = f"is {phase} or a folder in merge.tracked_path ({merge.tracked_path})"
            yield refused(f"merge.combine.sources[{index}].path", source.path, allowed)


def _combine(combine: CombineConfig) -> Iterator[str]:
    way, allowed_ways = combine.combination_type, _COMBINATIONS[combine.family]
    if way not in allowed_ways:
        allowed = f"with family {combine.family} is {listed(allowed_ways)}"
        yield refused("merge.combine.combination_type", way, allowed)
    yield from _combine_weights(combine)
    for name, value in (("density", combine.density), ("majority_sign_method", combine.majority_sign_method)):
        if (value is not None) != (name in _COMBINE_OPTIONS.get(way, ())):
            yield refused(f"merge.combine.{name}", value, f"with {way} is {'null' if value is not None else 'set'}")
    if combine.svd_rank is not None and way != "svd":
        yield refused("merge.combine.svd_rank", combine.svd_rank, f"with {way} is null; only svd reads it")


def _combine_weights(combine: CombineConfig) -> Iterator[str]:
    weights = [source.weight for source in combine.sources]
    averages = combine.family == "full" and combine.combination_type in ("linear", "slerp")
    if averages and (min(weights) < 0 or sum(weights) == 0):
        yield f"merge.combine.sources: weights {weights}, allowed for an average are not negative and not all 0"
    if combine.combination_type == "slerp" and len(weights) != 2:
        yield f"merge.combine.sources: {len(weights)}, allowed with slerp are 2: an arc has two ends"
