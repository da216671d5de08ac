"""Prompt templates: what they see of a row, and what they may not do."""

from pathlib import Path

import pytest

from tests.teacher.conftest import row
from tuneline.data.records import Message, make_example
from tuneline.errors import ConfigError
from tuneline.teacher.templates import load_template, render

TURNS = (
    Message("system", "be brief"),
    Message("user", "first {{ x }} <b>"),
    Message("assistant", "one"),
    Message("user", "second"),
    Message("assistant", "two"),
)
CONVERSATION = make_example("pool", 7, TURNS, None, {})
TEXT = make_example("documents", 3, (), "a document", {})
SHIPPED = Path(__file__).resolve().parents[2] / "conf" / "augment" / "templates"


def rendered(folder: Path, template: str, example: object = CONVERSATION) -> str:
    (folder / "t.jinja").write_text(template, encoding="utf-8")
    assert isinstance(example, type(CONVERSATION))
    return render(load_template(folder, "t.jinja"), example)


def test_a_template_sees_the_last_question_and_answer_and_all_messages(templates: Path) -> None:
    assert rendered(templates, "{{ prompt }}/{{ answer }}\n") == "second/two"
    loop = "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}"
    assert (
        rendered(templates, loop) == "system=be brief;user=first {{ x }} <b>;assistant=one;user=second;assistant=two;"
    )


def test_a_raw_text_is_seen_as_text(templates: Path) -> None:
    assert rendered(templates, "Read: {{ text }}", TEXT) == "Read: a document"


def test_a_row_is_data_and_never_part_of_the_template(templates: Path) -> None:
    attack = make_example(
        "pool", 1, (Message("user", "{{ 7 * 7 }}{% for x in y %}"), Message("assistant", "a")), None, {}
    )
    assert rendered(templates, "{{ prompt }}", attack) == "{{ 7 * 7 }}{% for x in y %}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ question }}", "'question' is undefined (row pool:7); the row offers messages, prompt, answer"),
        ("{{ text }}", "'text' is undefined"),
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ messages.append(1) }}", "access to attribute 'append' of 'list' object is unsafe"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ prompt + 1 }}", "can only concatenate str"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "range"),
        ("{% include 'secret' %}", "no loader"),
        ("   ", "renders nothing for row pool:7"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_one_line(template: str, message: str, templates: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        rendered(templates, template)
    assert str(caught.value).startswith(f"{templates}/t.jinja: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_syntax_error_is_named_with_its_line(templates: Path) -> None:
    with pytest.raises(ConfigError, match=r"t\.jinja:2: .*; mend the template"):
        rendered(templates, "fine\n{% if %}")


def test_a_template_that_is_not_there_names_those_that_are(templates: Path) -> None:
    with pytest.raises(ConfigError, match=r"other\.jinja: no such template, allowed is a file of .*: ask\.jinja"):
        load_template(templates, "other.jinja")


def test_a_link_out_of_the_folder_is_refused(templates: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (templates / "link.jinja").symlink_to(tmp_path / "secret")
    with pytest.raises(ConfigError, match=r"link\.jinja: no such template"):
        load_template(templates, "link.jinja")


def test_the_digest_is_that_of_the_file(templates: Path) -> None:
    # printf 'x' | sha256sum
    (templates / "x.jinja").write_text("x")
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert load_template(templates, "x.jinja").sha256 == digest


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.jinja")), ids=lambda path: path.stem)
def test_shipped_templates_show_the_row_and_no_jinja(path: Path) -> None:
    prompt = render(load_template(SHIPPED, path.name), row(5))
    assert "question 5" in prompt
    assert "{%" not in prompt
    assert "{{" not in prompt
    assert "\n\n\n" not in prompt


def test_the_template_for_new_rows_takes_documents_too() -> None:
    prompt = render(load_template(SHIPPED, "more_rows.jinja"), TEXT)
    assert "a document" in prompt
    assert prompt.endswith('[{"prompt": "...", "completion": "..."}, ...]')
