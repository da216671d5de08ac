"""What is asked of an endpoint, and what came back."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from tuneline.config.schema import EndpointConfig, TeacherJobConfig
from tuneline.data.records import Json

# A chat template adds tokens that the request does not show: roles, separators, a system prompt of its own.
_TEMPLATE_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Request:
    """One chat completion; requests with the same digest have the same answer, from the cache."""

    prompt: str
    body: Mapping[str, Json]  # exactly what is sent
    max_tokens: int  # of the answer
    sha256: str  # of address and body, 64 hex digits

    @property
    def max_cost_tokens(self) -> int:
        """At most what the endpoint will count, prompt and answer: no tokenizer makes more tokens than bytes."""
        return len(self.prompt.encode("utf-8", "surrogatepass")) + _TEMPLATE_TOKENS + self.max_tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """What an endpoint made of a request."""

    text: str  # may be empty
    finish_reason: str | None  # stop; length: cut off at max_tokens, or no room in the context; as the endpoint says it
    refusal: str | None  # why it would not answer this request, whose text is then empty
    prompt_tokens: int | None  # as the endpoint counts them; None: it does not say
    completion_tokens: int | None

    @property
    def hit_a_limit(self) -> bool:
        """True where the same request may get more another time: it must not stay in the cache."""
        return self.finish_reason == "length"

    @property
    def n_tokens(self) -> int | None:
        """Prompt and answer; None where the endpoint does not say."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens


def make_request(prompt: str, endpoint: EndpointConfig, job: TeacherJobConfig, seed: int) -> Request:
    """One user message, with the job's sampling; what the configuration leaves out is not sent."""
    body: dict[str, Json] = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": prompt}],
        endpoint.limit_parameter: job.max_tokens,
    }
    if job.temperature is not None:
        body["temperature"] = job.temperature
    if endpoint.sends_seed:
        body["seed"] = seed
    return Request(prompt, body, job.max_tokens, _digest(endpoint.base_url.rstrip("/"), body))


def _digest(base_url: str, body: Mapping[str, Json]) -> str:
    return hashlib.sha256(json.dumps([base_url, body], sort_keys=True).encode("ascii")).hexdigest()
