"""Phases that begin where an earlier one ended."""

from collections.abc import Iterator

from tuneline.config.rules.wording import listed, refused
from tuneline.config.schema import ModelConfig, PhaseConfig, RecipeConfig


def recipe_rules(recipe: RecipeConfig, model: ModelConfig) -> Iterator[str]:
    if recipe.final not in recipe.phases:
        yield refused("recipe.final", recipe.final, f"is a phase of the recipe: {listed([*recipe.phases])}")
    origins = [model.tracked_path]
    for name, phase in recipe.phases.items():
        yield from _phase(f"recipe.phases.{name}", phase, origins, model.max_position_embeddings)
        origins.append(f"models/phase/{name}")


def _phase(key: str, phase: PhaseConfig, origins: list[str], addressable: int) -> Iterator[str]:
    if phase.init not in origins:
        yield refused(f"{key}.init", phase.init, f"is the base or an earlier phase: {listed(origins)}")
    if phase.max_length > addressable:
        allowed = f"is at most model.max_position_embeddings = {addressable} tokens"
        yield refused(f"{key}.max_length", phase.max_length, allowed)
    if phase.max_steps < 1 and phase.max_steps != -1:
        allowed = "is a number of steps, or -1 to train num_train_epochs"
        yield refused(f"{key}.max_steps", phase.max_steps, allowed)
