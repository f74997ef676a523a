"""From what a model, a tool or a clock gave to text that a terminal, a pipe or a log can show as it is meant."""

import re
import unicodedata
from dataclasses import dataclass
from datetime import timedelta
from typing import IO

_HIDDEN = "\xad\u034f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff"
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f"
_SURROGATES = "\ud800-\udfff"
_BASE = r"[^\x00-\x7f\u200c\u200d]"  # what a joiner may join: emoji, and the letters of scripts that use it
_UNSAFE = re.compile(f"[{_CONTROLS}{_HIDDEN}{_SURROGATES}]|[\u200c\u200d](?!{_BASE})|(?<!{_BASE})[\u200c\u200d]")
_UNSAFE_IN_JSON = re.compile(f"[\x7f-\x9f{_HIDDEN}{_SURROGATES}]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")

_PLAINER = {
    "…": "...", "–": "-", "—": "--", "−": "-", "‐": "-", "‑": "-", "‘": "'", "’": "'", "‚": ",", "“": '"', "”": '"',
    "„": '"', "«": "<<", "»": ">>", "‹": "<", "›": ">", "•": "*", "·": "-", "→": "->", "←": "<-", "↑": "^", "↓": "v",
    "⇒": "=>", "×": "x", "✓": "+", "✔": "+", "✗": "x", "✘": "x", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~",
    "€": "EUR", "™": "(TM)", "©": "(C)", "®": "(R)", "\xa0": " ", "\u202f": " ", "\u2009": " ", "│": "|", "─": "-",
    "├": "+", "└": "+", "┌": "+", "┐": "+", "┘": "+", "▌": "|", "█": "#", "ß": "ss",
}  # fmt: skip


@dataclass(frozen=True)
class Signs:
    """The signs that a display is drawn with."""

    done: str = "✓"
    failed: str = "✗"
    idle: str = "·"
    dot: str = "·"
    more: str = "…"
    arrow: str = "→"
    bar: str = "│"
    spinner: str = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


_ASCII_SIGNS = Signs(done="+", failed="x", idle=".", dot="-", more="...", arrow="->", bar="|", spinner="-\\|/")


def signs(encoding: str | None) -> Signs:
    """The signs that a stream of this encoding can show."""
    return Signs() if is_unicode(encoding) else _ASCII_SIGNS


def encoding_of(stream: IO[str]) -> str | None:
    """The encoding of a stream, where it has one."""
    return getattr(stream, "encoding", None)


def is_unicode(encoding: str | None) -> bool:
    """Whether a stream of this encoding can show everything; one without an encoding holds text as it is."""
    return encoding is None or encoding.lower().startswith("utf")


def visible(text: str) -> str:
    r"""The text with what would steer a terminal or deceive a reader written out, as in \x1b and \u202e.

    That is: control characters but newline and tab, marks that turn the direction of writing, what has no width, and
    halves of characters. A joiner stays where it joins: in emoji, and in scripts that need it.
    """
    return _UNSAFE.sub(_escaped, text.replace("\r\n", "\n"))


def safe_json(text: str, encoding: str | None) -> str:
    """JSON of the same meaning that steers no terminal, holds no line separator, and fits the encoding."""
    text = _UNSAFE_IN_JSON.sub(_escaped_in_json, text)
    return text if is_unicode(encoding) else _NOT_ASCII.sub(_escaped_in_json, text)


def fitted(text: str, encoding: str | None, *, exact: bool = False) -> str:
    r"""The text in characters that the encoding has: ``"`` for “, e for é, ? for what has no likeness.

    `exact` writes the last two out instead (\xe9), for paths and code.
    """
    if encoding is None or is_unicode(encoding) or _encodable(text, encoding):
        return text
    return "".join(char if _encodable(char, encoding) else _plainer(char, encoding, exact=exact) for char in text)


def one_line(text: str, width: int, *, more: str = "…") -> str:
    """The text on one line of at most so many columns; `more` stands for what was cut."""
    # Ten characters a column are enough to fill it; the rest of a megabyte need not be looked at.
    line = " ".join(visible(text[: width * 10 + 1000]).split())
    if columns(line) <= width:
        return line
    room = max(width - columns(more), 0)
    used = 0
    for i, char in enumerate(line):
        used += columns(char)
        if used > room:
            return line[:i].rstrip() + more[:width]
    return line


def last_line(text: str) -> str:
    """The last line that has something on it."""
    return text.rstrip().rpartition("\n")[2]


def columns(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(_columns(char) for char in text)


def seconds(value: float) -> str:
    """A duration: 3.1 s, 2 min 5 s, 1 h 2 min."""
    if value < 59.95:
        return f"{max(value, 0.0):.1f} s"
    whole = round(timedelta(seconds=value).total_seconds())
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def tokens(value: int | None) -> str:
    """A number of tokens, or "unknown" where the server did not report it."""
    return "unknown" if value is None else f"{value:,}"


def size(count: int) -> str:
    """A number of bytes: 512 B, 48.2 kB, 3.1 MB."""
    if count < 1000:
        return f"{count} B"
    amount = float(count)
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 999.95:
            return f"{amount:.1f} {unit}"
    return f"{amount:,.1f} GB"


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 step, 2 steps."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escaped_in_json(match: re.Match[str]) -> str:
    units = match.group().encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _encodable(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _plainer(char: str, encoding: str, *, exact: bool) -> str:
    if char in _PLAINER:
        return _PLAINER[char]
    if exact:
        return char.encode("ascii", "backslashreplace").decode("ascii")
    base = unicodedata.normalize("NFKD", char)[0]
    if base != char and _encodable(base, encoding):
        return base
    return "?" * _columns(char)


def _columns(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
