"""The portable template renders what the original renders, in a Jinja that knows no generation block."""

import jinja2
import pytest
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from tests.export.conftest import TEMPLATE
from tuneline.export.chat_template import portable

TALK = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "u"},
    {"role": "assistant", "content": " a\n"},
    {"role": "user", "content": "v"},
]
SPACED = "{% for m in messages %}\n  {%- generation -%}  {{ m.content }}  {% endgeneration %}\n.{%+endgeneration%}"


class Generation(Extension):
    """What Transformers adds to Jinja, without its bookkeeping."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own convention)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@pytest.mark.parametrize(
    "template",
    [
        TEMPLATE,
        "{% for m in messages %}<{{ m.role }}>\n{% generation %}{{ m.content }}\n{% endgeneration %}\n{% endfor %}",
        "{% for m in messages %}a \n {%- generation -%} \n {{ m.content }} \n {%- endgeneration -%} \n b{% endfor %}",
    ],
)
@pytest.mark.parametrize("trim", [True, False])
def test_portable_template_renders_the_same(template: str, trim: bool) -> None:
    settings = {"trim_blocks": trim, "lstrip_blocks": trim}
    theirs = jinja2.Environment(extensions=[Generation], autoescape=False, **settings)  # type: ignore[arg-type]
    plain = jinja2.Environment(autoescape=False, **settings)  # type: ignore[arg-type]
    values = {"messages": TALK, "add_generation_prompt": True}
    assert plain.from_string(portable(template)).render(values) == theirs.from_string(template).render(values)


def test_template_without_the_tags_is_left_alone() -> None:
    template = "{{ messages }} {# generation #} {%- if add_generation_prompt %}x{% endif %}"
    assert portable(template) == template
