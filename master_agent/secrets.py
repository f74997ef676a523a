"""From text that may hold secrets to text that holds none: keys that are known by value, and what looks like one."""

import base64
import re
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import quote

HIDDEN = "(secret)"
NAMED = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS)S?$")  # what a variable is called that holds one
SHORTEST = 8  # characters; a shorter "key", such as the name of a local server, would tear holes into plain words
_SHAPES = re.compile(
    r"""(?<![A-Za-z0-9])(?:
        sk-(?=[\w-]*\d)[\w-]{16,}                    # OpenAI, Anthropic and others
      | [rs]k_(?:live|test)_[A-Za-z0-9]{16,}         # Stripe
      | r8_[A-Za-z0-9]{20,}                          # Replicate
      | hf_[A-Za-z0-9]{20,}                          # Hugging Face
      | gh[pousr]_[A-Za-z0-9]{20,} | github_pat_\w{20,} | glpat-[\w-]{20,}
      | npm_[A-Za-z0-9]{36} | pypi-[\w-]{50,}
      | (?:AKIA|ASIA)[0-9A-Z]{16}                    # Amazon
      | AIza[\w-]{35} | ya29\.[\w-]{20,}             # Google
      | xox[abeoprs]-[\w-]{10,}                      # Slack
      | SG\.[\w-]{16,}\.[\w-]{16,}                   # SendGrid
      | AGE-SECRET-KEY-1[0-9A-Z]{50,}
      | eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}        # a signed token
    )
    | (?<=Bearer\ )[\w.~+/-]{16,}=*
    | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----(?:.*?-----END\ [A-Z ]*PRIVATE\ KEY-----|[A-Za-z0-9+/=\s]*)
    """,
    re.VERBOSE | re.DOTALL,
)
# What begins one of the shapes: a text that holds none of these is not looked through, letter by letter.
_BEGINNINGS = (
    *("sk-", "k_live_", "k_test_", "r8_", "hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-"),
    *("npm_", "pypi-", "AKIA", "ASIA", "AIza", "ya29.", "xox", "SG.", "AGE-", "eyJ", "Bearer ", "PRIVATE KEY"),
)
# What may stand between the characters of a key that was broken into lines or into a list of pieces.
_GAP = r"(?:\\[nrt]|[\s\"',\\])*"
_GAPS = str.maketrans("", "", " \t\n\r\f\v\"',\\")


def without_keys(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables for a program that needs none of the keys: without those that are named like one or hold one."""
    every = Secrets()
    return {
        name: value
        for name, value in environ.items()
        if not NAMED.search(name.upper())
        and not re.search(r"://[^/\s]*:[^/\s]*@", value)
        and every.hide(value) == value
    }


class Secrets:
    """Removes secrets. `known` are the values of keys.

    Each is found as it is, in Base64, in hex and as a part of an address; in one piece or broken into lines or pieces.
    """

    def __init__(self, known: Collection[str] = ()) -> None:
        values = sorted({value for value in known if len(value) >= SHORTEST}, key=len, reverse=True)
        self._known = [value.encode() for value in values]
        self._forms = [form for value in values for form in dict.fromkeys((value, *_coded(value)))]

    def hide(self, text: str) -> str:
        """The text, with a sign in place of each secret."""
        if self._holds_known(text):
            text = self._pattern.sub(HIDDEN, text)
        if any(beginning in text for beginning in _BEGINNINGS):
            text = _SHAPES.sub(HIDDEN, text)
        return text

    def hide_in(self, value: Any) -> Any:
        """The JSON value, with each of its texts and names as `hide` leaves it."""
        match value:
            case str():
                return self.hide(value)
            case list():
                return [self.hide_in(item) for item in value]
            case dict():
                return {self.hide(name): self.hide_in(item) for name, item in value.items()}
        return value

    def knows(self, text: str) -> bool:
        """Whether one of the known keys stands in the text, in any of its forms."""
        return self._holds_known(text) and self._pattern.search(text) is not None

    def blank(self, content: bytes) -> bytes:
        """The bytes, as many as before, with the keys that are known blanked out."""
        for value in self._known:
            content = content.replace(value, b"x" * len(value))
        return content

    def _holds_known(self, text: str) -> bool:
        """Whether it is worth a closer look: quick, and never wrong where it says no."""
        if not self._forms:
            return False
        dense = re.sub(r"\\[nrt]", "", text).translate(_GAPS) if "\\" in text else text.translate(_GAPS)
        return any(form in dense or form.translate(_GAPS) in dense for form in self._forms)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(_GAP.join(map(re.escape, form)) for form in self._forms))


def _coded(value: str) -> list[str]:
    """What Base64 makes of the value wherever it begins, without what its neighbours decide; hex; percent signs."""
    found = []
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + value.encode()).decode().rstrip("=")
        start = -(-shift * 8 // 6)
        end = (shift + len(value.encode())) * 8 // 6
        found += [coded[start:end], coded[start:end].translate(str.maketrans("+/", "-_"))]
    plain = value.encode().hex()
    return [*found, plain, plain.upper(), quote(value, safe="")]
