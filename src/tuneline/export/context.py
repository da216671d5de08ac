"""Where llama.cpp addresses a longer context than it computes as the model was trained.

Read in the sources of llama.cpp as of llama-cpp-python 0.3.36 (src/models/*.cpp, `get_rope_factors` in
src/llama-model.cpp), and seen in the logits of the tests' miniatures.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tuneline.errors import ModelError

# Their windows are not kept: Mistral runs as Llama, which has none; Phi 3's is switched off on loading; Qwen's is not
# read. Gemma 2 and 3 and others do slide. Of a type in neither list the logits have to tell.
_ATTENDS_TO_ALL = (
    "mistral", "mixtral", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "starcoder2",
)  # fmt: skip


def check_context(link: str, config: Mapping[str, Any], n_ctx: int) -> None:
    """Raise `ModelError` where in a context of `n_ctx` tokens llama.cpp would not compute what the model does.

    `config` is the model's config.json. Held-out rows are usually shorter than the context, and do not show it.
    """
    for tokens, why in served_limits(config):
        if n_ctx > tokens:
            raise ModelError(
                f"{link}: export.n_ctx is {n_ctx}, but beyond {tokens} tokens llama.cpp computes otherwise than the "
                f"model: {why}; set export.n_ctx (and model.max_served_context) to at most {tokens}"
            )


def served_limits(config: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Each length in tokens from which a model with this config.json differs, and why.

    A model that reads pictures too has the settings of its language model in a section of their own.
    """
    config = config.get("text_config", config)
    window, slides = config.get("sliding_window"), config.get("use_sliding_window", True)
    if config.get("model_type") in _ATTENDS_TO_ALL and window is not None and slides:
        yield window, f"it attends to all tokens and not to the last {window} (sliding_window)"
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type")) in ("longrope", "su"):
        original = rope.get("original_max_position_embeddings") or config["original_max_position_embeddings"]
        yield original, "in a longer context it takes longrope's factors for long texts, also for short ones"
