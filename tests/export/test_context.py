"""Contexts in which llama.cpp serves another model are refused; tests of the architectures show it in the logits."""

from typing import Any

import pytest

from tuneline.errors import ModelError
from tuneline.export.context import check_context, served_limits

LONGROPE = {"rope_type": "longrope", "original_max_position_embeddings": 4096}
CONFIGS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "Mistral 7B v0.1": ({"model_type": "mistral", "sliding_window": 4096}, [4096]),
    "Mistral 7B v0.3": ({"model_type": "mistral", "sliding_window": None}, []),
    "Phi 3 mini 4k": (
        {"model_type": "phi3", "sliding_window": 2047, "rope_parameters": {"rope_type": "default"}},
        [2047],
    ),
    "Phi 4 mini": ({"model_type": "phi3", "sliding_window": 262144, "rope_parameters": LONGROPE}, [262144, 4096]),
    "Phi 3 mini 128k as Transformers 4 wrote it": (
        {"model_type": "phi3", "original_max_position_embeddings": 4096, "rope_scaling": {"type": "su"}},
        [4096],
    ),
    "Qwen 2.5": ({"model_type": "qwen2", "sliding_window": 32768, "use_sliding_window": False}, []),
    "Qwen 2 that slides": ({"model_type": "qwen2", "sliding_window": 32768, "use_sliding_window": True}, [32768]),
    "Gemma 3": ({"model_type": "gemma3_text", "sliding_window": 512, "rope_parameters": {}}, []),
    "Pixtral, which reads pictures": (
        {"model_type": "llava", "text_config": {"model_type": "mistral", "sliding_window": 4096}},
        [4096],
    ),
    "Llama 3.1": ({"model_type": "llama", "rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, []),
}


@pytest.mark.parametrize(("config", "limits"), CONFIGS.values(), ids=CONFIGS)
def test_limits_are_those_of_the_published_configurations(config: dict[str, Any], limits: list[int]) -> None:
    assert [tokens for tokens, _ in served_limits(config)] == limits


def test_a_longer_context_is_refused_in_one_line_and_an_equal_one_is_not() -> None:
    config = {"model_type": "mistral", "sliding_window": 4096}
    check_context("verify", config, 4096)
    with pytest.raises(ModelError, match=r"verify: export\.n_ctx is 4097, but beyond 4096 tokens .* set ") as caught:
        check_context("verify", config, 4097)
    assert "\n" not in str(caught.value)
