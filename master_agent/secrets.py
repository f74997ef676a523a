"""From text that may hold secrets to text that holds none: keys that are known by value, and what looks like one.

Which values are keys is told by `held_keys`.
"""

import base64
import re
from collections.abc import Collection
from functools import cache
from typing import Any
from urllib.parse import quote, quote_plus

HIDDEN = "(secret)"
SHORTEST = 8  # characters; a shorter "key", such as the name of a local server, would tear holes into plain words
_SHAPES = r"""(?<![A-Za-z0-9])(?:
        (?P<words>sk-[\w-]{16,})                     # OpenAI, Anthropic and others
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
    | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----(?:.*?-----END\ [A-Z ]*PRIVATE\ KEY-----|[A-Za-z0-9+/=\s]*)
    """
# What begins one of the shapes: a text that holds none of these is not looked through, letter by letter.
_BEGINNINGS = (
    *("sk-", "k_live_", "k_test_", "r8_", "hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-"),
    *("npm_", "pypi-", "AKIA", "ASIA", "AIza", "ya29.", "xox", "SG.", "AGE-", "eyJ", "PRIVATE KEY"),
)
_CREDENTIALS = r"([Bb](?i:earer|asic) +)([\w.~+/-]{8,}=*)"
# What may stand between the characters of a key that was broken into lines or into a list of pieces.
_GAP = r"(?:\\[nrt]|[\s\"',\\])*"
_GAPS = str.maketrans("", "", " \t\n\r\f\v\"',\\")


class Secrets:
    """Removes secrets. `known` are the values of keys.

    Each is found as it is, in Base64, in hex and as a part of an address; in one piece or broken into lines or pieces.
    """

    def __init__(self, known: Collection[str] = ()) -> None:
        values = sorted({value for value in known if len(value) >= SHORTEST}, key=len, reverse=True)
        self._known = [_bytes(value) for value in values]
        forms = (form for value in values for form in dict.fromkeys((value, *_coded(value))))
        self._forms = [(form, form.translate(_GAPS)) for form in forms]

    def hide(self, text: str) -> str:
        """The text, with a sign in place of each secret."""
        if there := self._there(text):
            text = _pattern(there).sub(HIDDEN, text)
        if any(beginning in text for beginning in _BEGINNINGS):
            text = _shapes().sub(_without_shape, text)
        plain = text.lower()
        if "bearer " in plain or "basic " in plain:
            text = re.sub(_CREDENTIALS, _without_credentials, text)
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
        there = self._there(text)
        return bool(there) and _pattern(there).search(text) is not None

    def blank(self, content: bytes) -> bytes:
        """The bytes, as many as before, with the keys that are known blanked out."""
        for value in self._known:
            content = content.replace(value, b"x" * len(value))
        return content

    def _there(self, text: str) -> list[str]:
        """The forms that are worth a closer look, the longest value's first: quick, and none is ever left out."""
        if not self._forms:
            return []
        dense = text.translate(_GAPS)
        if "\\" in text:  # what follows is a line's end in what is written like a program's text, or the key's own
            dense += "\0" + re.sub(r"\\[nrt]", "", text).translate(_GAPS)
        there = [one for one in self._forms if one[1] in dense]
        return [packed if len(packed) >= SHORTEST else form for form, packed in there]


@cache
def _shapes() -> re.Pattern[str]:
    return re.compile(_SHAPES, re.VERBOSE | re.DOTALL)  # when first wanted: it takes longer than all else here


def _without_shape(found: re.Match[str]) -> str:
    """What stays of what has the shape of a key: all of it, where it is made of words (`sk-learn-pipelines`)."""
    return HIDDEN if found["words"] is None or _chequered(found["words"]) else found[0]


def _without_credentials(found: re.Match[str]) -> str:
    """What stays of what looks like an Authorization header: all of it, where it is a sentence ("basic training")."""
    scheme, credentials = found.groups()
    login = scheme.lower().startswith("basic")
    held = _is_login(credentials) if login else len(credentials) >= 16 and _chequered(credentials)
    return f"{scheme}{HIDDEN}" if held else found[0]


def _is_login(coded: str) -> bool:
    """Whether it is a user with a password, as a header has them."""
    bare = coded.rstrip("=.-")
    try:
        return ":" in base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True).decode()
    except ValueError:
        return False


def turns(text: str) -> int:
    """How often a digit stands next to a letter."""
    return len(re.findall(r"(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])", text))


def _chequered(text: str) -> bool:
    """Whether letters and digits take turns, as they do in no word and no number."""
    met = turns(text)
    return met > 1 or (met == 1 and len(re.findall("[0-9]", text)) > 4)


def _pattern(forms: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(_GAP.join(map(re.escape, form)) for form in forms))


def _coded(value: str) -> list[str]:
    """What Base64 makes of the value wherever it begins, without what its neighbours decide; hex; percent signs, as
    Python, a form and a browser write them, in capitals or not."""
    found, content = [], _bytes(value)
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + content).decode().rstrip("=")
        start = -(-shift * 8 // 6)
        end = (shift + len(content)) * 8 // 6
        found += [coded[start:end], coded[start:end].translate(str.maketrans("+/", "-_"))]
    signs = [quote(content, safe=""), quote(content), quote_plus(content), quote(content, safe="!~*'()")]
    signs += [re.sub("%[0-9A-F]{2}", lambda sign: sign[0].lower(), spelt) for spelt in signs]
    return [*found, content.hex(), content.hex().upper(), *signs]


def _bytes(value: str) -> bytes:
    return value.encode(errors="surrogateescape")  # the environment may hold what is no UTF-8
