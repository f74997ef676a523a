"""From variables and addresses to the keys in them: by their names, by the place where they stand, by their looks."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any
from urllib.parse import unquote

from master_agent.secrets import HIDDEN, Secrets, turns

SHORTEST_NAMED = 12  # characters of what is a key by nothing but the name of its variable
MOST_SIGNS = 8  # of the @ in an address, each of which may be the one before the host

# The words of a name that say "key": as a whole, or as its end (DBPASS).
_WHOLE = {"PW", "CRED", "PAT", "AUTH", "JWT", "PSK", "SALT", "COOKIE"}
_APART = ("KEY", "TOKEN", "SECRET", "PASSWORD")  # behind which a short word says which one
_ENDS = (
    *(*_APART, "PASS", "PASSWD", "PASSPHRASE", "PASSCODE", "PWD", "CREDENTIAL", "MNEMONIC"),
    *("BEARER", "AUTHORIZATION"),
)
_NO_ENDS = ("ASKPASS", "BYPASS", "COMPASS", "OLDPWD")
# The words behind it that say which key it is: API_KEY_PROD; any short one behind some, if it does not say what of it.
_WHICH = {"PROD", "PRODUCTION", "LIVE", "STAGING", "TEST", "DEV", "DEVELOPMENT", "LOCAL", "OLD", "NEW", "BASE64"}
_WHICH |= {"JSON"}
_LONGEST_WHICH = 9  # characters
_WHAT_OF_IT = """
    ID URL URI ARN URN PATH FILE FILENAME DIR FOLDER NAME ALIAS TYPE KIND CLASS SIZE LENGTH LEN BIT BYTE CHAR COUNT
    LIMIT MAX MIN TTL AGE EXPIRY EXPIRE TIMEOUT DELAY REPEAT RATE USAGE BUDGET PRICE FORMAT ALG ALGO ALGORITHM MODE
    METHOD SCHEME STORE STORAGE CACHE SPACE MAP MAPPING LAYOUT SERVER HOST PORT DOMAIN PROVIDER SERVICE BACKEND ENDPOINT
    ISSUER AUDIENCE SCOPE REGION ZONE VERSION PREFIX SUFFIX HEADER FIELD COLUMN LABEL TAG POLICY RULE SOURCE MANAGER
    VAULT RING HINT PROMPT HASH ADDRESS SYMBOL DECIMAL BUCKET COMMAND CMD HELPER SOCK SOCKET PATTERN REGEX ENV VAR REF
    USER USERNAME EMAIL OWNER ROLE GROUP BINDING ENABLED REQUIRED DISABLED ROTATION GENERATOR LOGIN PUBLIC PUB DIRECTORY
    LOCATION CHAIN LIFETIME ORDER
    """
_THOUGHT_OF = r"PASS|PWD|(^|_)PW(_|$)|SECRET|MNEMONIC"  # a key that a person thought of: it may be words, a sentence
_TELLING = ("sig", "signature", "sas", "code", "auth", "pwd")  # what holds one in an address, if nowhere else

# What looks drawn by chance and is no key: under such names, and of such shapes.
_OPEN = {"ID", "SHA", "COMMIT", "DIGEST", "VERSION", "ADDRESS", "IMAGE", "BUCKET", "SUBNET", "VPC", "AMI", "MODEL"}
_OPEN |= {"HASH"}
_PUBLIC = r"""(?x) (?<!\w) 0x[0-9A-Fa-f]{40} (?!\w)
    | (?<!\w) sha256:[0-9a-f]{64} (?!\w)
    | (?<![\w-]) (?:ami|vpc|subnet|i|sg|vol|eni|igw|rtb|snap)-[0-9a-f]{8,17} (?![\w-])"""
# What stands where a key shall be put: your-api-key-here, changeme, xxx, <key>, ${KEY}.
_PLACEHOLDER = r"""(?xi) <[^<>]*> | \$\{[^{}]*\} | (?:\w{1,8}[-_])? [x*.…_-]{3,} | change[-_\ ]?(?:me|it)
    | (?:sk-)? (?:(?:replace|insert|enter|put)[-_\ ](?:\w{1,8}[-_\ ])?)?
      (?: me | your[-_\ ][\w\ -]* (?:key|token|secret|pass\w*|value|credentials?|here) )"""
_NAMES = r"[/\\][\w.@ ,-]+"  # in a path
_PATH = rf"(?:~|\.\.?|[A-Za-z]:)?(?:(?:{_NAMES}){{2,}}[/\\]?|{_NAMES}\.\w{{1,6}})"

_ADDRESS = r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s\"'<>]+"
_HOST_ALONE = r"(?:\[[^\]@/]*\]|[^:@/?#]*)(?:(?::\d+)?(?:/|$)|[?#])"  # the beginning of what has no user before it
_PAIR = r"""(?x) ([?&]?) ([A-Za-z][\w.-]{0,60}) =
    ( "(?:[^"\\]|""|\\.)*" | '(?:[^'\\]|''|\\.)*' | (?:[^;&%s\s"'] | &(?![A-Za-z][\w.-]{0,60}=))+ )"""
_LISTED = r"""(?x) \s* ([A-Za-z][\w\ .-]{0,60}?) \s*=\s*
    ( (?: "(?:[^"]|"")*" | '(?:[^']|'')*' | \{[^{}]*\} ) (?=\s*(?:;|$)) | [^;]* ) [;\s]*"""
_PARTS = r"[^\s\"'/:?&=#@;,<>]+"
_RUN = r"[A-Za-z0-9]{16,}"
_CODED = r"[A-Za-z0-9+/_-]{24,}"


def without_keys(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables for a program that needs none of the keys: without those that are named like one or hold one."""
    every = Secrets()
    return {
        name: value
        for name, value in environ.items()
        if not is_named(name) and not any(in_variable(name, value)) and every.hide(value) == value
    }


def is_named(variable: str) -> bool:
    """Whether a name says that it holds a key: `API_KEY`, `dbPassword`, `TOKEN_PROD_2`, `STRIPE_KEY_EU`."""
    words = _words(variable)
    for behind in range(min(3, len(words))):
        word = words[-1 - behind]
        if _says_key(word):
            elsewhere = words == ["PWD"] or words[:3] == ["GIT", "CONFIG", "KEY"]  # whose names are a shell's and git's
            return not elsewhere and _says_which(word, words[len(words) - behind :])
    return False


def _words(name: str) -> list[str]:
    """The words of a name in capitals, whether they are joined by lines, dots or capitals."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return [word for word in re.split("[^A-Z0-9]+", apart.upper()) if word]


def _says_key(word: str) -> bool:
    return any(one in _WHOLE or (one.endswith(_ENDS) and not one.endswith(_NO_ENDS)) for one in _forms(word))


def _says_which(word: str, behind: list[str]) -> bool:
    """Whether the words behind one that says "key" tell which one, and not what of it: KEY_EU is one, KEY_FILE none."""
    free = [one for one in behind if not one.isdigit() and not _WHICH.intersection(_forms(one))]
    if len(free) > 1 or not any(one.endswith(_APART) for one in _forms(word)):
        return not free
    return all(len(one) <= _LONGEST_WHICH and not set(_forms(one)).intersection(_WHAT_OF_IT.split()) for one in free)


def _forms(word: str) -> tuple[str, ...]:
    """The word, and the same without number and plural."""
    bare = word.rstrip("0123456789")
    return word, bare, bare.removesuffix("S")


def in_variable(name: str, value: str) -> Iterator[str]:
    """The keys in a variable's value, by its name and by the names in it: an address's password, `AccountKey=…`, JSON.

    A sentence is none, unless the name says that it may be: else plain words would be cut out of all that is read.
    Neither is a path, nor what stands where a key shall be put.
    """
    if is_named(name):
        yield from _in_named(name, re.sub(r"^\s*(bearer|basic|token)\s+", "", value, flags=re.IGNORECASE))
    if within := list(_in_json(name, value)):
        for inner, text in within:
            yield from in_variable(inner, text)
    else:
        yield from in_address(value)


def _in_named(name: str, value: str) -> Iterator[str]:
    if len(value) < SHORTEST_NAMED or is_placeholder(value) or _is_path(value):
        return
    parts = list(drawn(value))
    if parts or not re.search(r"\s", value.strip()) or _is_thought_of(name):
        yield from (value, *parts)


def _in_json(name: str, value: str) -> Iterator[tuple[str, str]]:
    """Each text of a JSON object or list with its name; one in a list has the list's."""
    waiting: list[tuple[str, Any]] = []
    if value.lstrip()[:1] in ("{", "["):
        try:
            waiting.append((name, json.loads(value)))
        except (ValueError, RecursionError):
            return
    while waiting:
        match waiting.pop():
            case (_, dict() as named):
                waiting += named.items()
            case (within, list() as listed):
                waiting += ((within, item) for item in listed)
            case (within, str() as text):
                yield within, text


def _is_thought_of(name: str) -> bool:
    return re.search(_THOUGHT_OF, "_".join(_words(name))) is not None


def is_placeholder(value: str) -> bool:
    """Whether it stands where a key shall be put."""
    return turns(value) < 3 and re.fullmatch(_PLACEHOLDER, value.strip()) is not None


def _is_path(value: str) -> bool:
    """Whether it is where a key lies: the path of a file that is there, or what looks like a path and like no key."""
    if value.startswith("/") and os.path.exists(value):  # noqa: PTH110 - Path's raises for what is too long a name
        return True
    begins = value.startswith(("/", "~", ".", "\\")) or value[1:2] == ":"
    return begins and re.fullmatch(_PATH, value) is not None and not any(drawn(value))


def in_address(text: str) -> Iterator[str]:
    """The keys in an address, or in a text with addresses and pairs: users, passwords, what is named like a key."""
    for address in (text.strip(), *re.findall(_ADDRESS, text)) if "//" in text else ():
        yield from _of_users(address)
    for name, value in _pairs(text) if "=" in text else ():
        if _is_told(name, value):
            yield from (value, unquote(value))


def _of_users(address: str) -> Iterator[str]:
    """User and password of an address; whichever @ it is that the host stands behind, for a password may hold some."""
    scheme, _, rest = address.partition("//")
    if re.match(_HOST_ALONE, rest):
        return
    for sign in islice(re.finditer("@", rest), MOST_SIGNS):
        user, _, password = rest[: sign.start()].partition(":")
        others = f"{scheme}//{user}{rest[sign.start() :]}".lower()
        again = re.fullmatch("[a-z]{1,12}", password) and password in others  # postgres:postgres@ is none
        if password and not again and not is_placeholder(password):
            yield from (password, unquote(password))
        if any(drawn(user)) or (not password and scheme.startswith("http") and len(user) >= SHORTEST_NAMED):
            yield from (user, unquote(user))


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Each `name=value`: of a connection string, where only `;` ends a value, of an address's query, of a command."""
    listed = _listed(text)
    pair = _PAIR % (r"\#" if "//" in text else "")  # which ends an address
    found = [(name, value) for query, name, value in re.findall(pair, text) if query or not listed]
    for name, value in (*listed, *found):
        yield name, _bare(value)


def _bare(value: str) -> str:
    """What stands in quotes, which it may hold doubled or behind a stroke, or in braces."""
    if value[:1] not in ("'", '"', "{"):
        return value
    return re.sub(r"""\\(['"\\])|(['"])\2""", r"\1\2", value.removesuffix("}" if value[0] == "{" else value[0])[1:])


def _listed(text: str) -> list[tuple[str, str]]:
    """The pairs of a connection string: `Server=db;Password='a b#c'`; none where the text is something else."""
    first, semicolon, _ = text.partition(";")
    if not semicolon:
        return []
    found: list[tuple[str, str]] = []
    at, pair = 0 if "=" in first else len(first) + 1, re.compile(_LISTED)  # jdbc:sqlserver://db;user=…
    while one := pair.match(text, at):
        found.append((one[1], one[2].strip()))
        at = one.end()
    return [] if text[at:].strip() else found


def _is_told(name: str, value: str) -> bool:
    """Whether the value of a pair is a key. Other than a password, it is none if it is made of plain words alone."""
    if not (is_named(name) or name.lower() in _TELLING) or is_placeholder(value) or _is_path(value):
        return False
    if name == "PWD" and value.startswith("/"):  # a shell's: where it is
        return False
    plain = unquote(value)
    return _is_thought_of(name) or re.search("[0-9]", plain) is not None or plain not in (plain.lower(), plain.upper())


def by_shape(name: str, value: str) -> Iterator[str]:
    """What looks like a key in the value of a variable whose name does not say so."""
    words = _words(name)
    if is_named(name) or "PUBLIC" in words[:-1] or _OPEN.intersection(_forms(words[-1] if words else "")):
        return
    shown = re.sub(_PUBLIC, " ", value)
    yield from drawn(shown)
    yield from (part for part in re.findall(_PARTS, shown) if any(drawn(part)))


def open_part(address: str) -> str:
    """An address for people: without user, password and query, and without what looks like a key in its path."""
    scheme, slashes, rest = address.partition("//") if "//" in address else ("", "", address)
    if not re.match(_HOST_ALONE, rest):
        rest = rest.rpartition("@")[2]
    shown = scheme + slashes + re.sub(r"[?#].*", "", rest, flags=re.DOTALL)
    parts = r"(?<=[^/]/)[^/]+" if slashes else r"[^/]+"  # a key may stand where an address was wanted
    return re.sub(parts, lambda part: HIDDEN if any(drawn(part[0])) else part[0], shown)


def drawn(text: str) -> Iterator[str]:
    """The parts of a text that look drawn by chance: letters and digits by turns, in a run too long for a name."""
    for run in re.findall(_RUN, text):
        if turns(run) >= 3 and len(re.findall("[A-Za-z]", run)) >= 3:
            yield run
    for coded in re.findall(_CODED, text):
        seams = len(re.findall(r"[+/_-]", coded))
        cases = re.search("[a-z]", coded) and re.search("[A-Z]", coded)
        if 0 < seams <= len(coded) / 8 and turns(coded) >= 5 and cases:
            yield coded
