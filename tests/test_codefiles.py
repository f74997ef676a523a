"""The files in a model's answer: kept apart, unfenced, named, and not a character changed."""

import time

import pytest

from master_agent.codefiles import CodeFile, code_files


def files(text: str) -> list[tuple[str, str, str]]:
    return [(file.name, file.language, file.content) for file in code_files(text, stem="page")]


def only(text: str) -> CodeFile:
    (file,) = code_files(text, stem="page")
    return file


@pytest.mark.parametrize(
    ("fence", "name", "language"),
    [
        ("html index.html", "index.html", "html"),
        ("html", "page.html", "html"),
        ("python:app.py", "app.py", "python"),
        ("ts:src/index.ts", "src/index.ts", "ts"),
        ('js title="a.js"', "a.js", "js"),
        ("js title='a.js' {1,3}", "a.js", "js"),
        ("python filename: app.py", "app.py", "python"),
        ("{.python filename=a.py}", "a.py", "python"),
        ("html # index.html", "index.html", "html"),
        ("html (index.html)", "index.html", "html"),
        ("html ./index.html", "index.html", "html"),
        ("tsx src/App.tsx {1,3}", "src/App.tsx", "tsx"),
        ("yaml docker-compose.yml", "docker-compose.yml", "yaml"),
        ("index.html", "index.html", "html"),
        ("a.txt", "a.txt", "text"),
        (".env", ".env", "text"),
        ("Dockerfile", "Dockerfile", "text"),
        ("dockerfile", "Dockerfile", "dockerfile"),
        ("makefile", "Makefile", "makefile"),
        ("c++", "page.cpp", "c++"),
        ("c#", "page.cs", "c#"),
        ("PYTHON", "page.py", "python"),
        ("", "page.txt", "text"),
        ("text notes", "page.txt", "text"),
        ("brainfuck", "page.txt", "brainfuck"),
        ("python ../../etc/x.py", "page.py", "python"),
        ("python /etc/x.py", "page.py", "python"),
    ],
)
def test_a_fence_gives_the_file_its_name_and_its_language(fence: str, name: str, language: str) -> None:
    file = only(f"Here it is.\n```{fence}\nx = 1\n```\nDone.")
    assert (file.name, file.language, file.content) == (name, language, "x = 1\n")


@pytest.mark.parametrize(
    ("before", "language", "name"),
    [
        ("Here is `src/app.py`:", "python", "src/app.py"),
        ("**style.css**", "css", "style.css"),
        ("### index.html\n", "", "index.html"),
        ("1. Save this as index.html.", "html", "index.html"),
        ("In `config.json` and then main.py we read it", "python", "main.py"),
        ("In main.py we read `config.json`", "json", "config.json"),
        ("Save this as Dockerfile:", "dockerfile", "Dockerfile"),
        ("And .gitignore.", "", ".gitignore"),
        ("See example.com for more:", "html", "page.html"),
        ("Version 1.2 of it, e.g. this:", "python", "page.py"),
        ("It reads /etc/passwd.py:", "python", "page.py"),
        ("It reads ../up.py:", "python", "page.py"),
        ("`index.html`\n\nIt does things.\n", "html", "page.html"),
    ],
)
def test_the_words_before_a_block_name_it_where_the_ending_fits(before: str, language: str, name: str) -> None:
    assert only(f"{before}\n```{language}\nx\n```").name == name


def test_several_files_of_one_answer_are_kept_apart() -> None:
    answer = "Two files.\n\n```html index.html\n<p>\n```\n\nand `style.css`:\n\n~~~css\np {}\n~~~\nThat is all."
    assert files(answer) == [("index.html", "html", "<p>\n"), ("style.css", "css", "p {}\n")]


def test_two_files_of_one_name_stay_two() -> None:
    answer = "```py\n1\n```\n```py\n2\n```\n```html a/b.html\n3\n```\n```html a/b.html\n4\n```"
    assert [(name, content) for name, _, content in files(answer)] == [
        ("page.py", "1\n"),
        ("page-2.py", "2\n"),
        ("a/b.html", "3\n"),
        ("a/b-2.html", "4\n"),
    ]


def test_the_words_of_one_block_do_not_name_the_next() -> None:
    assert [name for name, _, _ in files("`a.py`\n```python\n1\n```\n```python\n2\n```")] == ["a.py", "page.py"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        "  two\n\ttab\n",
        "a\n\nb\n",
        "form\x0cfeed\nU+2028\u2028here\n\x85\x1c\n",
        "`one` and ``two``\n",
        "~~~\n~~~\n",
    ],
)
def test_not_a_character_of_the_content_is_changed(content: str) -> None:
    assert only(f"```js a.js\n{content}```").content == content


def test_lines_that_end_as_on_windows_end_as_everywhere() -> None:
    assert files("```py a.py\r\nx\r\ny\r\n```\r\n") == [("a.py", "py", "x\ny\n")]


def test_a_block_inside_a_list_loses_the_lists_indent_and_keeps_its_own() -> None:
    assert only("1. First\n\n   ```py\n   if x:\n       y\n   ```").content == "if x:\n    y\n"


def test_a_longer_fence_holds_shorter_ones() -> None:
    assert files("````markdown\n```py\nx\n```\n````\nafter\n```py\ny\n```") == [
        ("page.md", "markdown", "```py\nx\n```\n"),
        ("page.py", "py", "y\n"),
    ]


def test_markdown_holds_blocks_though_its_own_fence_is_no_longer_than_theirs() -> None:
    answer = "```markdown README.md\n# It\n```bash\nls\n```\nend\n```\nafter"
    assert files(answer) == [("README.md", "markdown", "# It\n```bash\nls\n```\nend\n")]


def test_a_block_that_is_never_closed_goes_to_the_end() -> None:
    assert files("```py\nx\ny") == [("page.py", "py", "x\ny\n")]


@pytest.mark.parametrize("page", ["<!DOCTYPE html>\n<p>", "  <html>x</html>\n", '<?xml version="1.0"?><a/>'])
def test_a_whole_page_without_a_fence_is_a_file(page: str) -> None:
    assert files(page) == [("page.html", "html", page.strip() + "\n")]


def test_a_drawing_without_a_fence_is_a_file() -> None:
    assert files('<svg xmlns="x"></svg>') == [("page.svg", "svg", '<svg xmlns="x"></svg>\n')]


@pytest.mark.parametrize("text", ["", "\n", "I cannot do that.", "Use `x = 1` or ```y``` here.", "p < html"])
def test_words_alone_are_no_file(text: str) -> None:
    assert files(text) == []


def test_a_line_of_a_hundred_thousand_signs_takes_no_time() -> None:
    begun = time.process_time()
    for line in ("x" * 100_000, "a." * 50_000, "a/" * 50_000, "`" * 100_000):
        files(f"{line}\n```py\nx\n```\n```{line}\nx\n```")
    assert time.process_time() - begun < 2
