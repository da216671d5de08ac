"""How a broken rule is told: `key: value, allowed ...; fix`."""

from tuneline.config.explain import shown


def refused(key: str, value: object, allowed: str) -> str:
    return f"{key}: {shown(value)}, allowed {allowed}"


def listed(words: tuple[str, ...] | list[str]) -> str:
    return ", ".join(words)
