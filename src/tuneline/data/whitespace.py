"""White space that says nothing: line ends of another system, blanks at the end of lines, gaps.

White space that says something stays as it is: in code, JSON, tables, formulas, aligned columns and indented lines. In
doubt a text is left alone, to the last blank.
"""

import re
from itertools import pairwise

from msgspec.structs import replace

from tuneline.data.finding import Changed, Finding, Rule, each
from tuneline.data.records import Example, Message, with_id

# No-break and typographic spaces. The ideographic space U+3000 is the indentation of Chinese and Japanese.
_ODD_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f"
_TO_SPACES = str.maketrans(dict.fromkeys(_ODD_SPACES, " "))

# A fence may stand behind marks of lists and quotes; what closes it stands behind those of quotes only.
_FENCED = re.compile(
    r"^[^\S\n]*(?:(?:(>)|[-*+]|\d{1,9}[.)])[^\S\n]*)*(`{3,}|~{3,})[^\n`]*\n"
    r".*?(?:^(?(1)[^\S\n]*>(?:>|[^\S\n])*|[^\S\n]*)\2[`~]*[^\S\n]*$|\Z)",
    re.DOTALL | re.MULTILINE,
)
_FENCES = ("```", "~~~")
_CODE_SIGNS = (*"{}=\\<|", "SELECT ", "->", "+>", ":=", "++", "&&", "::", "/*", "#!", "):", ") :")
_CODE_WORDS = (
    "async await break case catch class const continue def do done echo elif else end enum esac except export extern fi"
    " final finally fn for from func function git if impl import include int interface lambda let match module mut"
    " namespace new npm package pass pip print private protected pub public raise repeat require return select static"
    " struct sudo switch then throw try type typedef until use using val var void where while with yield"
    " alter create delete drop insert join merge update values"
)
_SQL_WORDS = "SELECT INSERT UPDATE DELETE CREATE ALTER DROP WITH FROM WHERE JOIN GROUP ORDER RUN COPY CMD ENV"
_CODE_LINE = re.compile(
    rf" *(?:{'|'.join(_CODE_WORDS.split())}|{'|'.join(_SQL_WORDS.split())})\b"
    r"| *(?:- )?[\"']?[a-z_][\w.-]*[\"']?:(?:\s|$)"  # a key of YAML, a target of make
    r"|    +\S|[\[\"(+@$%]|>>>|---|diff "  # Markdown's and other code, JSON, a difference, a prompt of a shell
    r"|[^\s,]+(?:,[^\s,]*)+$"  # a row of CSV
)
_CODE_ENDS = (";", "(", "[")  # of lines
_CALL = re.compile(r"\w\(")
_COMMENT = re.compile(r"(?<!:)//")
_BLOCK = re.compile(r": *\n +\S")  # of Python or YAML
_FORMULA = re.compile(r"\$\$|\$[^\s$](?:[^$\n]*[^\s$])?\$(?!\d)")

_GAP = re.compile(r"(?<=\S)  +(?=\S)")
_GAP_OF_COLUMN = re.compile(r"(?<=[^\s.!?])  +(?=\S)")  # two blanks behind a sentence are typing, not a column
_GAP_OF_NUMBER = re.compile(r"(?<=\d)  +(?=\S)|(?<=\S)  +(?=\d)")
_QUOTES = re.compile("[`\"\u201c\u201d\u00ab\u00bb]|(?<![^\\W_])'|'(?![^\\W_])")


def whitespace_rule() -> Rule:
    """Tidies what people wrote; outputs of tools and arguments of tool calls stay as they are.

    Line ends become line feeds and odd spaces blanks; blanks at the end of lines go (two before another line are
    Markdown's line break, and stay), gaps inside lines become one blank, three or more line feeds two; blank space
    around a message goes. Tidying twice changes nothing more.
    """
    return each(_tidied)


def _tidied(example: Example) -> Finding:
    if example.text is not None:
        text = tidy(example.text)
        return None if text == example.text else _changed(replace(example, text=text))
    for message in example.turns:  # a generator takes half as long again, and every row comes here
        if _suspect(message.content):
            break
    else:
        return None
    parts = [tuple(map(_tidied_message, part)) for part in (example.messages, example.chosen, example.rejected)]
    if parts == [example.messages, example.chosen, example.rejected]:
        return None
    return _changed(replace(example, messages=parts[0], chosen=parts[1], rejected=parts[2]))


def _changed(example: Example) -> Changed:
    return Changed(with_id(example), {"whitespace_tidied": 1})


def _tidied_message(message: Message) -> Message:
    if message.role == "tool":
        return message
    return Message(message.role, tidy(message.content), message.tool_calls)


def tidy(text: str) -> str:
    """The text with white space in order; the very text where that could change what it means."""
    if not _suspect(text):
        return text
    if not _has_fence(text):
        return _tidy_prose(text, is_first=True, is_last=True)
    return _tidy_around_code(text)


def _has_fence(text: str) -> bool:
    return any(fence in text for fence in _FENCES)


def _tidy_around_code(text: str) -> str:
    """Tidies the prose between blocks of code; a text with a fence that is not understood stays as it is."""
    if "\r" in text:
        return text  # one kind of line end in the prose and another in the code would be worse
    spans = [(0, 0), *(fenced.span() for fenced in _FENCED.finditer(text)), (len(text), len(text))]
    prose = [text[end:start] for (_, end), (start, _) in pairwise(spans)]
    if any(map(_has_fence, prose)):
        return text
    code = [*(text[start:end] for start, end in spans[1:-1]), ""]
    last = len(prose) - 1
    tidied = [_tidy_prose(piece, is_first=at == 0, is_last=at == last) for at, piece in enumerate(prose)]
    return "".join(piece + block for piece, block in zip(tidied, code, strict=True))


def _suspect(text: str) -> bool:
    """False only for a text in order. Most texts come here: each test is one pass over the text, in C."""
    if len(text.strip()) != len(text) or "  " in text or "\r" in text:
        return True
    if "\n" in text and (" \n" in text or "\n\n\n" in text or ("\t" in text and "\t\n" in text)):
        return True
    return not text.isascii() and any(space in text for space in _ODD_SPACES)


def _tidy_prose(text: str, *, is_first: bool, is_last: bool) -> str:
    prose = text.replace("\r\n", "\n").replace("\r", "\n").translate(_TO_SPACES)
    lines = prose.split("\n")
    if _is_code(prose, lines) or _has_columns(lines):
        return text
    lines = [_without_tail(line, following) for line, following in zip(lines, [*lines[1:], ""], strict=True)]
    lines = [_without_gaps(line) for line in lines]
    tidied = re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
    if is_first:
        tidied = tidied.lstrip("\n")
        if "\n " not in tidied:  # beside other indented lines the first one's indentation says something
            tidied = tidied.lstrip(" ")
    return tidied.rstrip("\n ") if is_last else tidied


def _is_code(prose: str, lines: list[str]) -> bool:
    """True for anything that looks like code, data or mathematics, prose in doubt included."""
    if any(sign in prose for sign in _CODE_SIGNS):
        return True
    if any(_CODE_LINE.match(line) or line.endswith(_CODE_ENDS) for line in lines):
        return True
    return any(
        sign in prose and pattern.search(prose) is not None  # a sign is found much faster than a pattern
        for sign, pattern in (("$", _FORMULA), ("\n ", _BLOCK), ("(", _CALL), ("//", _COMMENT))
    )


def _without_tail(line: str, following: str) -> str:
    stripped = line.rstrip(" \t")
    is_line_break = stripped and line == stripped + "  " and following.strip()
    return line if is_line_break else stripped


def _without_gaps(line: str) -> str:
    """Two gaps, or one beside a number, may be columns; inside quotes every blank may count."""
    if "  " not in line or _QUOTES.search(line) or _GAP_OF_NUMBER.search(line):
        return line
    return line if len(_GAP_OF_COLUMN.findall(line)) > 1 else _GAP.sub(" ", line)


def _has_columns(lines: list[str]) -> bool:
    """True for lines with tabs inside, and for two lines in a row with gaps: they may stand one below the other."""
    if any("\t" in line and "\t" in line.rstrip() for line in lines):
        return True
    gaps = [_GAP_OF_COLUMN.search(line) is not None for line in lines]
    return any(gap and next_gap for gap, next_gap in pairwise(gaps))
