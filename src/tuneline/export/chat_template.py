"""The chat template that travels inside the GGUF."""

import re

_OPEN = re.compile(r"\{%(?P<left>[-+]?)\s*generation\s*(?P<right>[-+]?)%\}")
_CLOSE = re.compile(r"\{%(?P<left>[-+]?)\s*endgeneration\s*(?P<right>[-+]?)%\}")


def portable(template: str) -> str:
    """`template` without `{% generation %}`, which only Transformers' Jinja knows and which renders nothing.

    The tags become `{% if true %}`: their whitespace control (`{%-`) keeps its effect on the text around them.
    """
    return _CLOSE.sub(r"{%\g<left> endif \g<right>%}", _OPEN.sub(r"{%\g<left> if true \g<right>%}", template))
