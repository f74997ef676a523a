"""From text that may hold secrets to text that holds none: keys that are known by value, and what looks like one."""

import base64
import re
from collections.abc import Collection

HIDDEN = "(secret)"
SHORTEST = 8  # characters; a shorter "key", such as the name of a local server, would tear holes into plain words
_SHAPES = re.compile(
    r"""(?<![A-Za-z0-9])(?:
        sk-(?=[\w-]*\d)[\w-]{16,}                    # OpenAI and others
      | r8_[A-Za-z0-9]{20,}                          # Replicate
      | hf_[A-Za-z0-9]{20,}                          # Hugging Face
      | gh[pousr]_[A-Za-z0-9]{20,} | github_pat_\w{20,} | glpat-[\w-]{20,}
      | (?:AKIA|ASIA)[0-9A-Z]{16}                    # Amazon
      | AIza[\w-]{35}                                # Google
      | xox[abeoprs]-[\w-]{10,}                      # Slack
      | eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}        # a signed token
    )
    | (?<=Bearer\ )[\w.~+/-]{16,}=*
    | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?-----END\ [A-Z ]*PRIVATE\ KEY-----
    """,
    re.VERBOSE | re.DOTALL,
)


class Secrets:
    """Removes secrets. `known` are the values of keys; each is found as it is and in Base64."""

    def __init__(self, known: Collection[str] = ()) -> None:
        values = sorted({value for value in known if len(value) >= SHORTEST}, key=len, reverse=True)
        self._known = [value.encode() for value in values]
        forms = [form for value in values for form in (value, *_in_base64(value))]
        self._forms = re.compile("|".join(map(re.escape, forms))) if forms else None

    def hide(self, text: str) -> str:
        """The text, with a sign in place of each secret."""
        if self._forms is not None:
            text = self._forms.sub(HIDDEN, text)
        return _SHAPES.sub(HIDDEN, text)

    def blank(self, content: bytes) -> bytes:
        """The bytes, as many as before, with the keys that are known blanked out."""
        for value in self._known:
            content = content.replace(value, b"x" * len(value))
        return content


def _in_base64(value: str) -> list[str]:
    """What Base64 makes of the value wherever it begins, without what its neighbours decide."""
    found = []
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + value.encode()).decode().rstrip("=")
        start = -(-shift * 8 // 6)
        end = (shift + len(value.encode())) * 8 // 6
        found += [coded[start:end], coded[start:end].translate(str.maketrans("+/", "-_"))]
    return found
