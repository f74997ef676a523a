"""From a model's answer to the files in it: each fenced block apart, with its name, its language and its content."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

_OPEN = re.compile(r"^(?P<indent> {0,3})(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`\n]*)$")
_NAME = re.compile(r"(?<![\w./-])((?:[\w@.+-]+/)*[\w@+-]*\.?[\w@+-]+\.[A-Za-z0-9]{1,8})(?![\w/])")
LONGEST_WORDS = 300  # characters before a block that its name is looked for in
_BARE_NAMES = (
    "Dockerfile", "Makefile", "LICENSE", "Procfile", ".env", ".env.example", ".gitignore", ".dockerignore",
    ".editorconfig", ".htaccess",
)  # fmt: skip
_OF_LANGUAGE = {name.lower(): name for name in ("Dockerfile", "Makefile")}
_SUFFIXES = {
    "bash": ".sh", "c": ".c", "c#": ".cs", "c++": ".cpp", "cpp": ".cpp", "css": ".css", "csv": ".csv", "go": ".go",
    "html": ".html", "java": ".java", "javascript": ".js", "js": ".js", "json": ".json", "jsx": ".jsx", "kotlin":
    ".kt", "lua": ".lua", "markdown": ".md", "md": ".md", "php": ".php", "py": ".py", "python": ".py", "ruby":
    ".rb", "rust": ".rs", "scss": ".scss", "sh": ".sh", "shell": ".sh", "sql": ".sql", "svg": ".svg", "swift":
    ".swift", "toml": ".toml", "ts": ".ts", "tsx": ".tsx", "typescript": ".ts", "xml": ".xml", "yaml": ".yaml",
    "yml": ".yaml",
}  # fmt: skip
_LANGUAGES = {suffix: language for language, suffix in reversed(_SUFFIXES.items())} | {".htm": "html", ".py": "python"}
_PAGE = re.compile(r"\s*(<!doctype html|<html|<\?xml|<svg)", re.IGNORECASE)


@dataclass(frozen=True)
class CodeFile:
    """One file of an answer."""

    name: str
    language: str
    content: str


def code_files(text: str, *, stem: str) -> list[CodeFile]:
    """The files in a model's answer, in order; `stem` names those that have no name of their own.

    A name is taken from the fence (`html index.html`, `python:app.py`, `js title="a.js"`) or from the line before it.
    An answer that is a whole page without any fence is one file.
    """
    found = [_file(info, body, before, stem) for info, body, before in _blocks(text)]
    if not found and _PAGE.match(text):
        language = "svg" if text.lstrip()[:4].lower() == "<svg" else "html"
        found = [CodeFile(f"{stem}{_SUFFIXES[language]}", language, text.strip() + "\n")]
    return _apart(found)


def _blocks(text: str) -> list[tuple[str, str, str]]:
    """Each block's info, its content and the last line of words before it."""
    blocks: list[tuple[str, str, str]] = []
    lines = text.replace("\r\n", "\n").split("\n")  # and at no other sign: a form feed or U+2028 is the file's own
    if lines[-1] == "":
        lines.pop()
    before, i = "", 0
    while i < len(lines):
        opened = _OPEN.match(lines[i])
        if opened is None:
            before = lines[i][-LONGEST_WORDS:].strip() or before
            i += 1
            continue
        end = _end(lines, i, opened)
        indent = len(opened["indent"])
        body = [line[indent:] if not line[:indent].strip() else line for line in lines[i + 1 : end]]
        blocks.append((opened["info"].strip(), "".join(f"{line}\n" for line in body), before))
        before, i = "", end + 1
    return blocks


def _end(lines: list[str], start: int, opened: re.Match[str]) -> int:
    """The line that closes the block; in Markdown, blocks inside are stepped over. An open end is the text's end."""
    fence = opened["fence"]
    nests = _language(opened["info"]) in ("markdown", "md")
    closing = re.compile(rf"^ {{0,3}}{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$")
    inside = False
    for i in range(start + 1, len(lines)):
        if closing.match(lines[i]):
            if not inside:
                return i
            inside = False
        elif nests and not inside and (inner := _OPEN.match(lines[i])) and inner["info"].strip():
            inside = inner["fence"].startswith(fence)  # a shorter one cannot be taken for the end
    return len(lines)


def _language(info: str) -> str:
    word = re.match(r"[A-Za-z][\w+#-]*", info.strip().removeprefix("{").removeprefix("."))
    return word.group(0).lower() if word else ""


def _file(info: str, body: str, before: str, stem: str) -> CodeFile:
    language = _language(info)
    named = _name(re.split(r"[\s:{]", info, maxsplit=1)[1] if re.search(r"[\s:{]", info) else "") or _name(info)
    name = named or _name_before(before, language)
    suffix = PurePosixPath(name).suffix.lower() if name else ""
    if named and info == named:
        language = _LANGUAGES.get(suffix, "")  # the fence holds a name and no language
    language = language or _LANGUAGES.get(suffix, "")
    name = name or _OF_LANGUAGE.get(language)
    return CodeFile(name or f"{stem}{_SUFFIXES.get(language, '.txt')}", language or "text", body)


def _name(words: str) -> str | None:
    words = re.sub(r"^(#|//|<!--|--)\s+", "", words[:LONGEST_WORDS].strip().strip("{}"))
    titled = re.search(r"(?:title|file(?:name)?|name|path)\s*[=:]\s*[\"']?([^\"'\s}]+)", words)
    candidate = titled.group(1) if titled else words.split()[0] if words.split() else ""
    candidate = candidate.strip("`\"'*()[],;:").removeprefix("./")
    return candidate if _is_name(candidate) else None


def _is_name(candidate: str) -> bool:
    return candidate in _BARE_NAMES or (_NAME.fullmatch(candidate) is not None and ".." not in candidate.split("/"))


def _name_before(line: str, language: str) -> str | None:
    """The file that the words before a block name: the last one whose ending fits the language."""
    names = [name for name in _NAME.findall(line) if _is_name(name)]
    names += [word for word in _BARE_NAMES if re.search(rf"(?<![\w./-]){re.escape(word)}(?![\w/-]|\.\w)", line)]
    wanted = _SUFFIXES.get(language)
    fitting = [
        n for n in names if wanted is None or _LANGUAGES.get(PurePosixPath(n).suffix.lower()) == _alias(language)
    ]
    return fitting[-1].removeprefix("./") if fitting else None


def _alias(language: str) -> str:
    return _LANGUAGES.get(_SUFFIXES.get(language, ""), language)


def _apart(files: list[CodeFile]) -> list[CodeFile]:
    """Two files of one name would be one on disk: the second gets a number."""
    taken: set[str] = set()
    apart: list[CodeFile] = []
    for file in files:
        path, number, name = PurePosixPath(file.name), 1, file.name
        while name in taken:
            number += 1
            name = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
        taken.add(name)
        apart.append(CodeFile(name, file.language, file.content))
    return apart
