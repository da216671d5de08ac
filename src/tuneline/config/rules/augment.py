"""A teacher model, its jobs, and the stages that read what it writes."""

import re
from collections.abc import Iterator

from tuneline.config.rules.wording import listed, refused
from tuneline.config.schema import AugmentConfig, EndpointConfig, Params, TeacherJobConfig


def augment_rules(params: Params) -> Iterator[str]:
    augment, pool = params.augment, [source.name for source in params.data.sources if source.role == "pool"]
    if augment.jobs and augment.endpoint is None:
        yield "augment.endpoint: null, the jobs need it; choose augment=paraphrase for one, or augment=off"
    yield from _augment_stages(augment)
    if augment.endpoint is not None:
        yield from _endpoint(augment.endpoint)
    names = [job.name for job in augment.jobs]
    for index, job in enumerate(augment.jobs):
        if job.name in names[:index]:
            yield refused(f"augment.jobs[{index}].name", job.name, "is a name no other job has")
        yield from _teacher_job(f"augment.jobs[{index}]", job, pool)
    if "teacher" in params.data.meta_fields:
        yield "data.meta_fields: 'teacher' is where augment writes a row's origin; rename the key in your rows"


def _augment_stages(augment: AugmentConfig) -> Iterator[str]:
    """All of it is on, or all of it off: rows that nobody reads would be paid for, and missing ones be trained on."""
    is_read = augment.examples.startswith("data/augmented/")
    is_reported = augment.reported == "data/augmented"
    if not augment.jobs:
        if augment.endpoint is not None or augment.stages or is_read or is_reported:
            yield "augment.jobs: [], allowed beside an endpoint and stages is at least one; choose augment=off for none"
        return
    if not augment.stages:
        yield "augment.stages: [], allowed with jobs is [teacher]; choose augment=off to ask nothing"
    if not is_read:
        yield refused("augment.examples", augment.examples, "with jobs is data/augmented/clean/examples.jsonl")
    if not is_reported:
        yield refused("augment.reported", augment.reported, "with jobs is data/augmented")


def _endpoint(endpoint: EndpointConfig) -> Iterator[str]:
    """Neither line shows the value: it may be a key, or hold one."""
    if re.fullmatch(r"[A-Z_][A-Z0-9_]*", endpoint.api_key_env or "NONE") is None:
        allowed = "is the NAME of an environment variable, such as OPENAI_API_KEY; the key itself stays out of conf/"
        yield f"augment.endpoint.api_key_env: no such name, allowed {allowed}"
    if re.search(r"[@?#]", endpoint.base_url):
        allowed = "is scheme, host, port and path; a key goes into the variable that api_key_env names"
        yield f"augment.endpoint.base_url: holds credentials or a query, allowed {allowed}"


def _teacher_job(key: str, job: TeacherJobConfig, pool: list[str]) -> Iterator[str]:
    if job.source not in pool:
        yield refused(f"{key}.source", job.source, f"is a source with role pool: {listed(pool)}")
    if job.kind == "rewrite" and job.target is None:
        yield refused(f"{key}.target", job.target, "with kind rewrite is answer or prompt")
    if job.kind == "generate" and job.target is not None:
        yield refused(f"{key}.target", job.target, "with kind generate is null: it writes both")
