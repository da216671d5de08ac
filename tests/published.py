"""Chat templates of published models, as TRL carries them: nothing is fetched, nothing copied."""

from importlib.util import find_spec
from pathlib import Path


def published(name: str) -> str:
    spec = find_spec("trl")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")
