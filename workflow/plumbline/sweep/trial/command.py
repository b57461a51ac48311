"""Commands with placeholders, filled in for the shell so that no value is ever evaluated."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

Value = bool | int | float | str

PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")
VARIABLE = re.compile(r"\$\{\w+\}")
EVALUATES = re.compile(r"(?<![\w./-])(eval|let|declare|typeset)(?![\w./-])")
SUBSCRIPT = re.compile(r"\w\[\s*$")
ENDS_A_WORD = set(" \t\n;&|()<>")
REFUSED = {
    "`": "a command substitution",
    "$(": "a command substitution",
    "$[": "shell arithmetic",
    "[[": "a shell condition",
    "$'": "an ANSI-C string",
    '$"': "a translated string",
    "<(": "a process substitution",
    ">(": "a process substitution",
    "<<": "a here-document",
    "((": "shell arithmetic",
}
"""Shell syntax in which quoting has other rules; and what it is called."""
OUTSIDE_QUOTES = ("<(", ">(", "<<", "((", "[[", "$'", '$"')
"""Of these, what is plain text inside double quotes. In single quotes all of it is."""


class Piece(NamedTuple):
    """A piece of a command: text as it stands, or the name of a placeholder and the quotes around it."""

    text: str
    is_placeholder: bool = False
    quotes: str = ""
    """`'`, `"` or nothing."""


def pieces(template: str) -> list[Piece]:
    """`template` taken apart. `{name}` is a placeholder; `{{` and `}}` are braces; `${name}` is the shell's variable.

    Raises ValueError for shell syntax in which a value could not be quoted safely.
    """
    return list(_pieces(template))


def placeholders(template: str) -> list[str]:
    """Names of the placeholders, each once, in their order."""
    return list(dict.fromkeys(piece.text for piece in pieces(template) if piece.is_placeholder))


def filled_in(template: str, values: Mapping[str, Value]) -> str:
    """The command for the shell: each value arrives there as one string, whatever it contains, quoted or not."""
    quoted = {"": _quoted, "'": _in_single_quotes, '"': _in_double_quotes}
    return "".join(
        quoted[piece.quotes](plain(values[piece.text])) if piece.is_placeholder else piece.text
        for piece in pieces(template)
    )


def plain(value: Value) -> str:
    """A value as a program reads it: `true`, `3`, `0.001`, or the text as it is."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _pieces(template: str) -> Iterator[Piece]:
    place, quotes, text = 0, "", ""
    while place < len(template):
        found = PLACEHOLDER.match(template, place)
        sign, two = template[place], template[place : place + 2]
        before = template[place - 1] if place else " "
        if quotes != "'" and two == "${":
            variable = VARIABLE.match(template, place)
            if variable is None:
                raise _unsafe("a parameter expansion with more than a name")
            text, place = text + variable[0], variable.end()
        elif two in ("{{", "}}"):
            text, place = text + sign, place + 2
        elif found:
            if not quotes and SUBSCRIPT.search(text):
                raise _unsafe("a subscript")
            yield Piece(text)
            yield Piece(found[1], is_placeholder=True, quotes=quotes)
            text, place = "", found.end()
        elif sign == "\\" and quotes != "'":
            if PLACEHOLDER.match(template, place + 1):
                raise ValueError(f"a backslash stands before {template[place + 1 :].split('}')[0]}}}; remove it")
            text, place = text + two, place + 2
        else:
            if syntax := _refused(two, quotes, comment=sign == "#" and before in ENDS_A_WORD):
                raise _unsafe(syntax)
            if sign in "'\"" and quotes in ("", sign):
                quotes = "" if quotes else sign
            elif not quotes and (word := EVALUATES.match(template, place)):
                raise _unsafe(word[1])
            text, place = text + sign, place + 1
    if quotes:
        raise ValueError(f"a quotation mark {quotes} is never closed")
    yield Piece(text)


def _unsafe(syntax: str) -> ValueError:
    return ValueError(f"{syntax} cannot be combined with placeholders safely; put it in a script of its own")


def _refused(two: str, quotes: str, *, comment: bool) -> str | None:
    """What the syntax that begins here is called, where it is refused."""
    if quotes == "'":
        return None
    if comment and not quotes:
        return "a comment"
    begins = next((syntax for syntax in REFUSED if two.startswith(syntax)), None)
    return None if begins is None or (quotes and begins in OUTSIDE_QUOTES) else REFUSED[begins]


def _quoted(text: str) -> str:
    return "'" + _in_single_quotes(text) + "'"


def _in_single_quotes(text: str) -> str:
    return text.replace("'", "'\\''")


def _in_double_quotes(text: str) -> str:
    return re.sub(r'([\\$`"])', r"\\\1", text)
