"""From text that may hold secrets to text that holds none: keys that are known by value, and what looks like one."""

import base64
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "(secret)"
SHORTEST = 8  # characters; a shorter "key", such as the name of a local server, would tear holes into plain words
SHORTEST_NAMED = 12  # characters of what is a key by nothing but the name of its variable
# What a variable is called that holds a key; then it may say which one: API_KEY_2, TOKEN_PROD.
_NAMED = re.compile(
    r"""( KEY | TOKEN | SECRET | PASSWORD | PASSWD | PASSPHRASE | CREDENTIAL | (?<!ASK)(?<!BY)(?<!COM)PASS
        | (?<!^)(?<!^OLD)PWD | (^|_)(PAT|AUTH|JWT|PSK|SALT|COOKIE) )
        S? ( _?\d{1,4} | _(PROD(UCTION)?|LIVE|STAGING|TEST|DEV(ELOPMENT)?|LOCAL|OLD|NEW|BASE64|JSON) ){0,2} $
    """,
    re.VERBOSE,
)
_IN_WORDS = re.compile(r"PASS|PWD|SECRET")  # a key that a person thought of may be a sentence
_TELLING = ("sig", "signature", "sas", "code", "auth", "pwd")  # what holds one in an address, if nowhere else
_OPEN = re.compile(r"(^|_)(ID|SHA|COMMIT|DIGEST|VERSION)$|(^|_)PUBLIC_")  # what looks drawn by chance and is no key
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s\"'<>]+")
_PAIR = re.compile(r"([A-Za-z][\w.-]{0,60})=([^;&#\s\"']+)")
_PARTS = re.compile(r"[^\s\"'/:?&=#@;,<>]+")
_RUN = re.compile(r"[A-Za-z0-9]{16,}")
_CODED = re.compile(r"[A-Za-z0-9+/_-]{24,}")
_TURN = re.compile(r"(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")
_SHAPES = r"""(?<![A-Za-z0-9])(?:
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
    """
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
        if not is_named(name) and not any(in_address(value)) and every.hide(value) == value
    }


def is_named(variable: str) -> bool:
    """Whether a variable's name says that it holds a key."""
    return _NAMED.search(variable.upper()) is not None


def in_variable(name: str, value: str) -> Iterator[str]:
    """The keys in a variable's value, by its name and by the names in it: an address's password, `AccountKey=…`.

    A sentence is none, unless the name says that it may be: else plain words would be cut out of all that is read.
    """
    if is_named(name) and len(value) >= SHORTEST_NAMED:
        parts = list(drawn(value))
        if parts or not re.search(r"\s", value.strip()) or _IN_WORDS.search(name.upper()):
            yield from (value, *parts)
    yield from in_address(value)


def in_address(text: str) -> Iterator[str]:
    """The keys in an address, or in a text with addresses and pairs: users, passwords, what is named like a key."""
    for address in (text.strip(), *_ADDRESS.findall(text)) if "//" in text else ():
        scheme, _, rest = address.partition("//")
        before, at, _ = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")
        user, _, password = before.partition(":")
        again = password.lower() in address.replace(f":{password}{at}", at).lower()
        if password and not (again and re.fullmatch("[a-z]{1,12}", password)):  # postgres:postgres@ is none
            yield from (password, unquote(password))
        if any(drawn(user)) or (not password and scheme.startswith("http") and len(user) >= SHORTEST_NAMED):
            yield from (user, unquote(user))
    for name, value in _PAIR.findall(text) if "=" in text else ():
        if (is_named(name) or name.lower() in _TELLING) and not value.startswith("/"):  # PWD=/home/me
            yield from (value, unquote(value))


def by_shape(name: str, value: str) -> Iterator[str]:
    """What looks like a key in the value of a variable whose name does not say so."""
    if is_named(name) or _OPEN.search(name.upper()):
        return
    yield from drawn(value)
    yield from (part for part in _PARTS.findall(value) if any(drawn(part)))


def open_part(address: str) -> str:
    """An address for people: without user, password and query, and without what looks like a key in its path."""
    shown = re.sub(r"(^|//)[^/?#]*@", r"\1", re.sub(r"[?#].*", "", address, flags=re.DOTALL))
    parts = r"(?<=[^/]/)[^/]+" if "//" in shown else r"[^/]+"  # a key may stand where an address was wanted
    return re.sub(parts, lambda part: HIDDEN if any(drawn(part[0])) else part[0], shown)


def drawn(text: str) -> Iterator[str]:
    """The parts of a text that look drawn by chance: letters and digits by turns, in a run too long for a name."""
    for run in _RUN.findall(text):
        if len(_TURN.findall(run)) >= 3 and len(re.findall("[A-Za-z]", run)) >= 3:
            yield run
    for coded in _CODED.findall(text):
        seams = len(re.findall(r"[+/_-]", coded))
        cases = re.search("[a-z]", coded) and re.search("[A-Z]", coded)
        if 0 < seams <= len(coded) / 8 and len(_TURN.findall(coded)) >= 5 and cases:
            yield coded


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
            text = _shapes().sub(HIDDEN, text)
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


def _pattern(forms: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(_GAP.join(map(re.escape, form)) for form in forms))


def _coded(value: str) -> list[str]:
    """What Base64 makes of the value wherever it begins, without what its neighbours decide; hex; percent signs."""
    found, content = [], _bytes(value)
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + content).decode().rstrip("=")
        start = -(-shift * 8 // 6)
        end = (shift + len(content)) * 8 // 6
        found += [coded[start:end], coded[start:end].translate(str.maketrans("+/", "-_"))]
    return [*found, content.hex(), content.hex().upper(), quote(content, safe="")]


def _bytes(value: str) -> bytes:
    return value.encode(errors="surrogateescape")  # the environment may hold what is no UTF-8
