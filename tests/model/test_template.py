"""The chat template: which tokens a conversation has, and which of them are trained."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.published import published
from tuneline.data.records import Json, Message, ToolCall
from tuneline.errors import ModelError

pytestmark = pytest.mark.slow

TURNS = (
    Message("system", "Be brief."),
    Message("user", "How many?"),
    Message("assistant", "Three."),
    Message("user", "Sure?"),
    Message("assistant", "Yes, three."),
)


TOOLS: tuple[Json, ...] = (
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    },
)
WITH_CALL = (
    Message("user", "Rain in Rome?"),
    Message("assistant", "", (ToolCall("weather", {"city": "Rome"}),)),
    Message("tool", "sun"),
    Message("assistant", "No rain."),
)


def loaded(tiny: ModuleType, folder: Path, **settings: Any) -> Any:
    from tuneline.model.tokenizers import load_tokenizer_from

    tiny.save_tokenizer(folder, **settings)
    return load_tokenizer_from(folder)


def trained_text(tokenizer: Any, messages: tuple[Message, ...], tools: tuple[Json, ...] = ()) -> list[str]:
    """The trained runs, as text."""
    from itertools import groupby

    from tuneline.model.template import encode_conversation

    encoded = encode_conversation(tokenizer, messages, tools)
    pairs = zip(encoded.input_ids, encoded.loss_mask, strict=True)
    runs = [(mask, [token for token, _ in run]) for mask, run in groupby(pairs, key=lambda pair: pair[1])]
    return [tokenizer.decode(ids) for mask, ids in runs if mask]


def configured(tiny: ModuleType, folder: Path, template: str, **kwargs: bool | int | str) -> Any:
    """The tokenizer of a base model with these `chat_template_kwargs`."""
    from tuneline.model.tokenizers import load_tokenizer

    tiny.save_tokenizer(folder, template=template)
    return load_tokenizer(tiny.model_config(folder, kwargs=kwargs))


@pytest.mark.parametrize("template", ["CHATML_MARKED", "CHATML"])
def test_loss_is_on_the_answers_and_their_end_token_and_nothing_else(
    tiny: ModuleType, tmp_path: Path, template: str
) -> None:
    tokenizer = loaded(tiny, tmp_path, template=getattr(tiny, template))
    assert trained_text(tokenizer, TURNS) == ["Three.<|im_end|>", "Yes, three.<|im_end|>"]


def test_marks_and_prefixes_agree_on_every_token(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.template import encode_conversation

    marked = loaded(tiny, tmp_path / "marked", template=tiny.CHATML_MARKED)
    plain = loaded(tiny, tmp_path / "plain", template=tiny.CHATML)
    assert encode_conversation(marked, TURNS) == encode_conversation(plain, TURNS)


def test_prompt_tokens_are_the_beginning_of_the_conversations(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.template import encode_conversation, encode_prompt

    tokenizer = loaded(tiny, tmp_path)
    prompt, encoded = encode_prompt(tokenizer, TURNS[:-1]), encode_conversation(tokenizer, TURNS)
    assert encoded.input_ids[: len(prompt)] == prompt
    assert tokenizer.decode(prompt).endswith("Sure?<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode(encoded.input_ids[len(prompt) :]) == "Yes, three.<|im_end|>\n"


def test_a_template_that_rewrites_earlier_answers_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.template import encode_conversation

    # as Qwen3 does with thoughts: only the last answer keeps them
    rewriting = tiny.CHATML.replace(
        "{{ message['content']",
        "{% if loop.last and message['role'] == 'assistant' %}{{ '(final) ' }}{% endif %}{{ message['content']",
    )
    tokenizer = loaded(tiny, tmp_path, template=rewriting)
    with pytest.raises(ModelError, match="message 3 of 5 in another way once more follow"):
        encode_conversation(tokenizer, TURNS)


def test_a_bos_written_by_the_template_is_there_once(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.template import encode_conversation, encode_prompt

    tokenizer = loaded(tiny, tmp_path, add_bos=True, template="{{ bos_token }}" + tiny.CHATML_MARKED)
    ids = encode_conversation(tokenizer, TURNS).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert encode_prompt(tokenizer, TURNS[:2]).count(tokenizer.bos_token_id) == 1


def test_a_double_bos_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.template import encode_conversation

    tokenizer = loaded(tiny, tmp_path, add_bos=True, template="{{ bos_token + bos_token }}" + tiny.CHATML_MARKED)
    with pytest.raises(ModelError, match="starts with '<s>' twice"):
        encode_conversation(tokenizer, TURNS)


@pytest.mark.parametrize("add_bos", [False, True])
def test_a_text_has_the_tokenizers_bos_and_one_eos(tiny: ModuleType, tmp_path: Path, add_bos: bool) -> None:
    from tuneline.model.template import encode_text

    tokenizer = loaded(tiny, tmp_path, add_bos=add_bos)
    ids = encode_text(tokenizer, "SELECT 1;")
    assert tokenizer.decode(ids) == ("<s>" if add_bos else "") + "SELECT 1;<|im_end|>"


def test_special_tokens_spelled_out_in_a_text_are_found(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.template import special_tokens_in

    tokenizer = loaded(tiny, tmp_path)
    assert special_tokens_in(tokenizer, ["a", "b <|im_end|><|im_start|>system"]) == ["<|im_end|>", "<|im_start|>"]
    assert special_tokens_in(tokenizer, ["1 < 2 |> im_end"]) == []


@pytest.mark.parametrize("template", ["CHATML_MARKED", "CHATML"])
def test_a_conversation_that_the_template_refuses_is_one_line(tiny: ModuleType, tmp_path: Path, template: str) -> None:
    from tuneline.model.template import encode_conversation, encode_prompt

    refusing = "{% if messages[0].role == 'tool' %}{{ raise_exception('no\\ntools') }}{% endif %}"
    tokenizer = loaded(tiny, tmp_path, template=refusing + {"CHATML": tiny.CHATML}.get(template, tiny.CHATML_MARKED))
    for encode in (encode_conversation, encode_prompt):
        encode(tokenizer, TURNS)
        with pytest.raises(ModelError, match=r"its chat template cannot render this conversation: no tools$"):
            encode(tokenizer, (Message("tool", "3"), *TURNS))


def test_a_broken_template_is_one_line(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.template import encode_prompt

    tokenizer = loaded(tiny, tmp_path, template="{% for message in messages %}{{ message.content")
    with pytest.raises(ModelError, match=r"its chat template cannot render this conversation: \w"):
        encode_prompt(tokenizer, TURNS)


def test_another_template_renders_the_prompt_as_text(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.template import render_text

    tokenizer = loaded(tiny, tmp_path)
    own = render_text(tokenizer, TURNS[:2])
    assert (
        own == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert (
        render_text(tokenizer, TURNS[:2], tiny.CHATML_MARKED.replace("assistant\\n' }}{% endif", "' }}{% endif")) != own
    )
    with pytest.raises(ModelError, match="cannot render"):
        render_text(tokenizer, TURNS[:2], "{{ raise_exception('no') }}")


def test_qwen3_without_thinking_trains_the_bare_answer_behind_an_empty_thought(
    tiny: ModuleType, tmp_path: Path
) -> None:
    from tuneline.data.records import make_example
    from tuneline.model.template import encode_prompt
    from tuneline.training.tokenizing import tokenize

    tokenizer = configured(tiny, tmp_path, published("qwen3"), enable_thinking=False)
    assert trained_text(tokenizer, TURNS[:3]) == ["Three.<|im_end|>"]
    assert tokenizer.decode(encode_prompt(tokenizer, TURNS[:2])).endswith("assistant\n<think>\n\n</think>\n\n")
    (row,) = tokenize(tokenizer, [make_example("pool", 1, TURNS[:3], None, {})], "sft", 128, (2,)).rows
    assert tokenizer.decode([label for label in row.labels if label != -100]) == "Three.<|im_end|>"


def test_qwen3_with_thinking_would_train_an_empty_thought_and_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.data.records import make_example
    from tuneline.training.tokenizing import tokenize

    for folder, kwargs in (("unset", {}), ("true", {"enable_thinking": True})):
        tokenizer = configured(tiny, tmp_path / folder, published("qwen3"), **kwargs)
        with pytest.raises(ModelError, match=r"pool:1: row .*'<think>.* would be trained where the row says 'Three.'"):
            tokenize(tokenizer, [make_example("pool", 1, TURNS[:3], None, {})], "sft", 128, (2,))


def test_settings_travel_with_the_saved_template(tiny: ModuleType, tmp_path: Path) -> None:
    """An adapter's folder, a merged model and a GGUF render what was trained, without knowing the settings."""
    from tuneline.model.template import encode_prompt
    from tuneline.model.tokenizers import load_tokenizer, load_tokenizer_from

    kwargs: dict[str, Any] = {"enable_thinking": False, "greeting": "{% 'ü\n\" %} 😀", "n": 3}
    template = "{{ greeting }}{{ n + 1 }}" + published("qwen3")
    tokenizer = configured(tiny, tmp_path / "base", template, **kwargs)
    tokenizer.save_pretrained(tmp_path / "tuned")
    tuned = load_tokenizer_from(tmp_path / "tuned")
    prompt = encode_prompt(tuned, TURNS[:2])
    assert prompt == encode_prompt(tokenizer, TURNS[:2])
    assert str(tuned.decode(prompt)).startswith("{% 'ü\n\" %} 😀4<|im_start|>system")
    again = load_tokenizer(tiny.model_config(tmp_path / "tuned", kwargs=kwargs))
    assert again.chat_template == tuned.chat_template == tokenizer.chat_template
    with pytest.raises(ModelError, match="sets 'enable_thinking' itself, so True would change nothing"):
        load_tokenizer(tiny.model_config(tmp_path / "tuned", kwargs={"enable_thinking": True}))


def test_a_template_without_settings_stays_as_it_is(tiny: ModuleType, tmp_path: Path) -> None:
    assert configured(tiny, tmp_path, tiny.CHATML).chat_template == tiny.CHATML


def test_a_setting_that_the_template_does_not_read_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model.chat_template_kwargs: .* does not read 'enable_thinkin'"):
        configured(tiny, tmp_path, tiny.CHATML, enable_thinkin=False)


@pytest.mark.parametrize("changed", [{}, {"date_string": "1 May 2025"}])
@pytest.mark.parametrize("name", ["llama3_1", "llama3_2"])
def test_llamas_date_does_not_follow_the_clock(
    tiny: ModuleType, tmp_path: Path, name: str, changed: dict[str, str]
) -> None:
    """Nor the server's: what the template itself sets, no `date_string` from outside can change."""
    from tuneline.model.template import encode_prompt
    from tuneline.model.tokenizers import load_tokenizer_from

    tokenizer = configured(tiny, tmp_path / "base", published(name), **changed)
    tokenizer.save_pretrained(tmp_path / "tuned")
    tuned = load_tokenizer_from(tmp_path / "tuned")
    assert tuned.chat_template == tokenizer.chat_template
    date = changed.get("date_string", "26 Jul 2024")
    assert f"Today Date: {date}\n" in tuned.decode(encode_prompt(tuned, TURNS[:2]))
    asked: Any = [{"role": "user", "content": "?"}]
    assert f"Today Date: {date}\n" in tuned.apply_chat_template(asked, date_string="9 Sep 2029", tokenize=False)


def test_a_template_that_always_writes_todays_date_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"writes today's date \(strftime_now\)"):
        configured(tiny, tmp_path, published("gptoss"))


QWEN_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call><|im_end|>'


@pytest.mark.parametrize("name", ["qwen2_5", "qwen2_5_training"])
def test_calls_of_tools_are_trained_and_tools_and_results_are_not(tiny: ModuleType, tmp_path: Path, name: str) -> None:
    """By prefixes and by marks alike, with Qwen's own way of writing a call."""
    from tuneline.model.template import encode_conversation

    tokenizer = loaded(tiny, tmp_path, template=published(name))
    trained = trained_text(tokenizer, WITH_CALL, TOOLS)
    # TRL's template marks the line feed before a call too, with which the prompt ends
    assert [text.removeprefix("\n") for text in trained] == [QWEN_CALL, "No rain.<|im_end|>"]
    text = tokenizer.decode(encode_conversation(tokenizer, WITH_CALL, TOOLS).input_ids)
    assert '"description": "Weather of a city."' in text.split("<|im_start|>user")[0]
    assert "<tool_response>\nsun\n</tool_response>" in text


def test_the_prompt_before_a_call_is_what_training_saw(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.template import encode_conversation, encode_prompt, render_text

    tokenizer = loaded(tiny, tmp_path, template=published("qwen2_5"))
    ids = encode_conversation(tokenizer, WITH_CALL[:2], TOOLS).input_ids
    prompt = encode_prompt(tokenizer, WITH_CALL[:1], TOOLS)
    assert ids[: len(prompt)] == prompt
    assert tokenizer.decode(ids[len(prompt) :]) == QWEN_CALL + "\n"
    assert tokenizer.decode(prompt) == render_text(tokenizer, WITH_CALL[:1], None, TOOLS)


def test_llama_writes_one_call_at_a_time_and_refuses_two(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.template import tools_problem

    tokenizer = loaded(tiny, tmp_path, add_bos=True, template=published("llama3_1"))
    call = '{"name": "weather", "parameters": {"city": "Rome"}}<|eot_id|>'
    assert trained_text(tokenizer, WITH_CALL, TOOLS) == [call, "No rain.<|eot_id|>"]
    twice = (*WITH_CALL[:1], Message("assistant", "", WITH_CALL[1].tool_calls * 2))
    assert "only supports single tool-calls" in str(tools_problem(tokenizer, twice, TOOLS))


NO_TOOLS = "{{ raise_exception('no tools') if tools }}"


@pytest.mark.parametrize(
    ("template", "messages", "tools", "problem"),
    [
        ("CHATML", TURNS, TOOLS, "does not show the tools"),
        ("CHATML", WITH_CALL, (), "does not show the tool calls of message 2"),
        ("CHATML_MARKED", WITH_CALL[:2], (), "does not show the tool calls of message 2"),
        ("CHATML", WITH_CALL[:1], TOOLS, "does not show the tools"),
        ("refusing", TURNS, TOOLS, "cannot render this conversation: no tools"),
        ("joining", WITH_CALL, (), "cannot render this conversation: unsupported operand"),
        ("first call", (WITH_CALL[0], Message("assistant", "", WITH_CALL[1].tool_calls * 2)), (), "calls of message 2"),
        ("no results", WITH_CALL, (), "does not show the tool result in message 3"),
    ],
)
def test_a_template_that_does_not_show_tools_refuses_the_conversation(
    tiny: ModuleType,
    tmp_path: Path,
    template: str,
    messages: tuple[Message, ...],
    tools: tuple[Json, ...],
    problem: str,
) -> None:
    from tuneline.model.template import encode_conversation, encode_prompt, tools_problem

    plain, called = tiny.CHATML, "{% if message.tool_calls %}{{ message.tool_calls[0].function.name }}{% endif %}"
    template = {
        "CHATML": plain,
        "CHATML_MARKED": tiny.CHATML_MARKED,
        "refusing": NO_TOOLS + plain,
        "joining": plain.replace("{% endfor", called.replace("function.name", "function.arguments + ''") + "{% endfor"),
        "first call": plain.replace("{% endfor", called + "{% endfor"),
        "no results": plain.replace("{% endfor", called + "{% endfor").replace(
            "{{ message['content']", "{{ '' if message['role'] == 'tool' else message['content']"
        ),
    }[template]
    tokenizer = loaded(tiny, tmp_path, template=template)
    assert problem in str(tools_problem(tokenizer, messages, tools))
    for encode in (encode_conversation, encode_prompt):
        with pytest.raises(ModelError, match=problem):
            encode(tokenizer, messages, tools)


def test_a_conversation_without_tools_is_rendered_by_any_template(tiny: ModuleType, tmp_path: Path) -> None:
    from tuneline.model.template import tools_problem

    assert tools_problem(loaded(tiny, tmp_path, template=NO_TOOLS + tiny.CHATML), TURNS, ()) is None
