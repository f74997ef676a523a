"""What is heard in a text: the calls that models write into it, in the shapes in which they do, and nothing else."""

import json
import random
from typing import Any

import pytest

from master_agent.threads import ToolSpec
from master_agent.threads._heard import CALL_MARKS, hear, without_thought
from master_agent.threads._showing import Shown

TEXT = {"type": "string"}
WRITE = ToolSpec(
    "write_file",
    "Writes.",
    {
        "type": "object",
        "properties": {
            "path": TEXT,
            "content": TEXT,
            "overwrite": {"type": "boolean"},
            "last": {"type": "boolean"},
        },
        "required": ["path", "content", "last"],
    },
)
READ = ToolSpec("read_file", "Reads.", {"type": "object", "properties": {"path": TEXT}, "required": ["path"]})
LIST = ToolSpec("list_files", "Lists.", {"type": "object", "properties": {}})
DRAW = ToolSpec("draw", "Draws.", {"type": "object", "properties": {"shape": {"type": "object"}}})
TOOLS = (WRITE, READ, LIST, DRAW)

A = ("read_file", {"path": "a.txt"})
NOTHING: tuple[str, Any] = ("list_files", {})
QUOTED = ("write_file", {"path": "a.md", "content": 'He said "{hi}"\n```\nand left.\n```\n'})
NESTED = ("draw", {"shape": {"kind": "box", "corners": [[0, 0], [1, -2.5]], "name": None, "filled": True}})

READ_A = '{"name": "read_file", "arguments": {"path": "a.txt"}}'
LISTS = '{"name": "list_files", "arguments": {}}'


def wrote(call: tuple[str, Any], key: str = "arguments") -> str:
    return json.dumps({"name": call[0], key: call[1]})


SHAPES: dict[str, tuple[str, list[tuple[str, Any]]]] = {
    # Qwen, Hermes
    "tags": (f"<tool_call>\n{READ_A}\n</tool_call>", [A]),
    "several": (f"<tool_call>\n{READ_A}\n</tool_call>\n<tool_call>\n{LISTS}\n</tool_call>", [A, NOTHING]),
    "two in one": (f"<tool_call>\n{READ_A}\n{LISTS}\n</tool_call>", [A, NOTHING]),
    "a list": (f"<tool_call>[{READ_A}, {LISTS}]</tool_call>", [A, NOTHING]),
    "never closed": (f"<tool_call>\n{READ_A}", [A]),
    "opened twice": (f"<tool_call>\n<tool_call>\n{READ_A}\n</tool_call>", [A]),
    "a bracket too few": (f"<tool_call>\n{READ_A[:-1]}\n</tool_call>", [A]),
    "fenced in tags": (f"<tool_call>\n```json\n{READ_A}\n```\n</tool_call>", [A]),
    "tools": (f"<tools>\n{READ_A}\n</tools>", [A]),
    "quotes and braces": (f"<tool_call>\n{wrote(QUOTED)}\n</tool_call>", [QUOTED]),
    "nested": (f"<tool_call>{wrote(NESTED)}</tool_call>", [NESTED]),
    "no arguments": ('<tool_call>\n{"name": "list_files"}\n</tool_call>', [NOTHING]),
    "null arguments": ('<tool_call>{"name": "list_files", "arguments": null}</tool_call>', [NOTHING]),
    "arguments as a text": (f"<tool_call>{wrote(('read_file', json.dumps(A[1])))}</tool_call>", [A]),
    "arguments beside the name": ('<tool_call>{"name": "read_file", "path": "a.txt"}</tool_call>', [A]),
    "named by the key": ('<tool_call>{"read_file": {"path": "a.txt"}}</tool_call>', [A]),
    "single quotes": ("<tool_call>{'name': 'read_file', 'arguments': {'path': 'a.txt',},}</tool_call>", [A]),
    "unknown": ('<tool_call>{"name": "erase", "arguments": {"all": true}}</tool_call>', [("erase", {"all": True})]),
    # Qwen-Coder, Llama
    "in tags all over": (
        """<tool_call>
<function=write_file>
<parameter=path>
a.py
</parameter>
<parameter=content>
Result: 1
if a < 1:
    print('</p>')
</parameter>
<parameter=overwrite>
true
</parameter>
</function>
</tool_call>""",
        [
            (
                "write_file",
                {"path": "a.py", "content": "Result: 1\nif a < 1:\n    print('</p>')", "overwrite": True},
            )
        ],
    ),
    "without the outer tag": ("<function=read_file>\n<parameter=path>\na.txt\n</function>\n</tool_call>", [A]),
    "JSON in a function": ('<function=read_file>{"path": "a.txt"}</function>', [A]),
    "python tag": ('<|python_tag|>{"name": "read_file", "parameters": {"path": "a.txt"}}<|eom_id|>', [A]),
    "python tag, semicolon": (f"<|python_tag|>{READ_A}; {LISTS}", [A, NOTHING]),
    "pythonic": ('[read_file(path="a.txt"), list_files()]', [A, NOTHING]),
    "pythonic, nested": (
        "[draw(shape={'kind': 'box', 'corners': [[0, 0], [1, -2.5]], 'name': null, \"filled\": true})]",
        [NESTED],
    ),
    # Mistral
    "TOOL_CALLS": (f"[TOOL_CALLS] [{READ_A}]", [A]),
    "TOOL_CALLS, name first": ('[TOOL_CALLS]read_file{"path": "a.txt"}', [A]),
    "TOOL_CALLS, ARGS": ('[TOOL_CALLS]read_file[ARGS]{"path": "a.txt"}[TOOL_CALLS]list_files[ARGS]{}', [A, NOTHING]),
    # what Ollama and llama.cpp leave in the text
    "bare": (READ_A, [A]),
    "bare, several": ('{\n"name": "read_file",\n"arguments": {"path": "a.txt"}} {"name": "list_files"}', [A, NOTHING]),
    "over lines": ('{"name": "read_file",\n"arguments": {"path": "a\n"},}', [("read_file", {"path": "a\n"})]),
    "bare, in a sentence": (f"I will read it: {READ_A}", [A]),
    "bare, as OpenAI has it": (json.dumps({"tool_calls": [{"type": "function", "function": json.loads(READ_A)}]}), [A]),
    "fenced": (f"Here it is:\n\n```json\n{READ_A}\n```\nThis reads the file.", [A]),
    "fenced, parameters": ('```\n{"name": "read_file", "parameters": {"path": "a.txt"}}\n```', [A]),
    "fenced, never closed": (f"```json\n{READ_A}", [A]),
    "fenced, with a fence inside": (f"```json\n{wrote(QUOTED)}\n```", [QUOTED]),
    "tool_code": ('```tool_code\nprint(default_api.read_file(path="a.txt"))\n```', [A]),
    "python": ('```python\nread_file("a.txt")\n```', [A]),
    "LM Studio": (f"[TOOL_REQUEST]\n{READ_A}\n[END_TOOL_REQUEST]", [A]),
    "LFM": ('<|tool_call_start|>[read_file(path="a.txt")]<|tool_call_end|>', [A]),
    "Kimi": (
        ('<|tool_calls_section_begin|><|tool_call_begin|>functions.read_file:0<|tool_call_argument_begin|>{"path": '
        '"a.txt"}<|tool_call_end|><|tool_calls_section_end|>'),
        [A],
    ),
    "DeepSeek": (
        ('<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>read_file\n```json\n{"path": "a.txt"}\n```'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"),
        [A],
    ),
    "GLM": (
        ("<tool_call>read_file\n<arg_key>path</arg_key>\n<arg_value>a.txt</arg_value>\n</tool_call>\n"
        f"<tool_call>\n{LISTS}\n</tool_call>"),
        [A, NOTHING],
    ),
    "MiniMax": (
        ('<minimax:tool_call>\n<invoke name="read_file">\n<parameter name="path">a.txt</parameter>\n</invoke>\n'
        '<invoke name="list_files">\n</invoke>\n</minimax:tool_call>'),
        [A, NOTHING],
    ),
    "functools": (f"functools[{READ_A}]", [A]),
    "functions.": ('{"name": "functions.read_file", "arguments": {"path": "a.txt"}}', [A]),
    # ReAct
    "ReAct": ('Thought: I must look.\nAction: read_file({"path": "a.txt"})\nObservation: hello', [A]),
    "ReAct, a bracket too few": ('Action: read_file({"path": "a.txt"\nObservation: hello', [A]),
    "ReAct, input": ('Thought: Hm.\nAction: read_file\nAction Input: {"path": "a.txt"}\nObservation: hello', [A]),
    "ReAct, bold": ('**Action:** `read_file`\n**Action Input:** {"path": "a.txt"}', [A]),
    "ReAct, words": ("Action: read_file\nAction Input: a.txt\nObservation: hello", [A]),
    "ReAct, fenced": ('Action: read_file\nAction Input:\n```json\n{"path": "a.txt"}\n```\nObservation: x', [A]),
    "ReAct, block": ('Action:\n```json\n{"action": "read_file", "action_input": {"path": "a.txt"}}\n```', [A]),
    "ReAct, keywords": ('Action: read_file(path="a)")', [("read_file", {"path": "a)"})]),
    "ReAct, nothing": ("Thought: I look.\nAction: list_files\nObservation: a.txt\nFinal Answer: a.txt", [NOTHING]),
    "ReAct, unknown": ('Action: erase({"all": true})', [("erase", {"all": True})]),
    "after a thought": (f"<think>\nI could use <tool_call>.\n</think>\n\n<tool_call>\n{READ_A}\n</tool_call>", [A]),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_a_call_is_heard_in_the_shapes_in_which_models_write_it(shape: str) -> None:
    text, calls = SHAPES[shape]

    heard = hear(text, TOOLS)

    assert [(call.name, json.loads(call.arguments)) for call in heard.calls] == calls
    assert heard.fault == ""
    assert without_thought(text).startswith(heard.kept)


@pytest.mark.parametrize(
    "after",
    [
        "\n<tool_response>\nhello\n</tool_response>\nIt says hello.",
        f"\nObservation: hello\n<tool_call>{LISTS}</tool_call>",
        f"\nThe file says hello.\n<tool_call>{LISTS}</tool_call>",
        "\nFinal Answer: hello",
    ],
)
def test_what_follows_the_calls_is_an_invention_and_left_out(after: str) -> None:
    said = f"First I look.\n<tool_call>\n{READ_A}\n</tool_call>"

    heard = hear(said + after, TOOLS)

    assert [call.name for call in heard.calls] == ["read_file"]
    assert (heard.text, heard.kept) == ("First I look.", said)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Hello.", None),
        ("<think>Hm.\n</think>\n\nHello.", "Hello."),
        ("Hm, let me think.\n</think>\nHello.", "Hello."),
        ("Thought: I know.\nFinal Answer: Hello.\nAnd bye.", "Hello.\nAnd bye."),
        ("I used write_file to save a.txt, and `read_file(...)` to look.", None),
        ('```json\n{"name": "demo", "version": "1.0"}\n```', None),
        (f"```json calls.json\n{READ_A}\n```", None),
        (f"```js\ncall({READ_A})\n```", None),
        ("```python\ndef read_file(path):\n    return open(path).read()\n\nprint(read_file('a'))\n```", None),
        ('{"name": "Ada", "arguments": {"path": "a.txt"}}', None),
        ('{"result": {"name": "read_file", "arguments": {"path": "a.txt"}}}', None),
        ('{"name": "read_file", "parameters": {"type": "object", "properties": {"path": {}}}}', None),
        ("erase(all=True)\n[erase(all=True)]", None),
        ("Action: I will now write the file.\nAction: none", None),
        ("It caches by functools.lru_cache, read from <tools> in the file.", None),
        ("Action: read_file was used, then I was done.", None),
        ("body {\n  color: red;\n}", None),
    ],
)
def test_an_answer_is_no_call_though_there_is_json_or_code_in_it(text: str, answer: str | None) -> None:
    heard = hear(text, TOOLS)

    assert (heard.calls, heard.fault, heard.text) == ((), "", answer or text)


def test_an_agent_without_tools_calls_none_whatever_it_writes() -> None:
    for text, _ in SHAPES.values():
        heard = hear(text, ())
        assert (heard.calls, heard.fault, heard.text) == ((), "", without_thought(text))


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "write_file", "arguments": {"path": "a", "content": "half of it\n</tool_call>',
        "<tool_call>\n<function=write_file>\n<parameter=path>\na\n</parameter>\n<parameter=content>\nhalf of it",
        "<tool_call>\nwrite the file a.txt\n</tool_call>",
        "[TOOL_CALLS]",
        'Action: write_file(path="a", content=open("b").read())',
    ],
)
def test_what_is_marked_as_a_call_and_cannot_be_read_is_a_fault_and_never_half_a_call(text: str) -> None:
    heard = hear(f"Well.\n{text}", TOOLS)

    assert heard.calls == ()
    assert heard.fault
    assert heard.fault.strip() in text.strip()


@pytest.mark.parametrize(
    "text",
    [
        '<action><tool_name>write_file</tool_name><arg key="path">a</arg></action>',
        'CALL write_file {path: a}',
        '{"use": "write_file", "with": {"path": "a"}}',
    ],
)  # fmt: skip
def test_a_shape_that_nobody_knows_is_a_fault_for_those_who_call_in_text_alone(text: str) -> None:
    assert hear(text, TOOLS, eager=True).fault
    assert not hear(text, TOOLS).fault


def test_code_that_defines_what_a_tool_is_called_is_an_answer() -> None:
    assert hear("Action: read_file of a.txt", TOOLS, eager=True).fault
    for text in ("```python\ndef read_file(path):\n    ...\n```", "```js app.js\nread_file({path})\n```", "I did it."):
        assert hear(text, TOOLS, eager=True).fault == ""


def test_a_call_that_was_only_thought_of_is_a_fault() -> None:
    assert hear(f"<think>So: <tool_call>{READ_A}</tool_call></think>", TOOLS).fault.startswith("<tool_call>")


def test_whatever_is_written_nothing_raises_and_only_tools_that_are_named_are_called() -> None:
    chance = random.Random(7)
    words = [text for text, _ in SHAPES.values()]
    signs = [*CALL_MARKS, *"{}[]()\"'`:,=\n\\\0é☃", "```", "</tool_call>", "Action:", "Final Answer:", "print(", "name"]
    for _ in range(300):
        text = "".join(chance.choice(words) if chance.random() < 0.3 else chance.choice(signs) for _ in range(8))
        cut = sorted(chance.randrange(len(text) + 1) for _ in range(2))
        for said in (text, text[cut[0] : cut[1]], text[: cut[0]] + text[cut[1] :]):
            heard = hear(said, TOOLS, eager=chance.random() < 0.5)
            assert all(call.name and call.name in said for call in heard.calls), said
            assert len(heard.kept) <= len(said)


def test_long_texts_are_heard_in_time_that_grows_with_them() -> None:
    for text in (
        "{" * 50_000,
        "[{" * 20_000,
        '{"a": ' * 5_000,
        "```\n" * 20_000,
        "Action: a(\n" * 10_000,
        "<think>" * 9_000,
    ):
        assert hear(text, TOOLS).calls == ()  # a test of minutes if it did not


@pytest.mark.parametrize(
    "text", ["word " * 20_000, f"<think>{'hm ' * 30_000}</think>\n\nDone."], ids=["words", "thought"]
)
def test_a_long_text_is_streamed_in_time_that_grows_with_it(text: str) -> None:
    shown = Shown(["read_file"])

    streamed = "".join(map(shown.add, text))  # for minutes if each piece looked at all that came before it

    assert streamed + shown.rest(text) == text.rpartition("</think>\n\n")[2]


@pytest.mark.parametrize("size", [1, 3, 7])
def test_no_half_of_a_call_is_streamed(size: int) -> None:
    for name, (text, _) in SHAPES.items():
        said = f"Let me see.\n{text}" if not text.startswith("<think>") else text
        shown, heard = Shown([spec.name for spec in TOOLS]), hear(said, TOOLS)
        pieces = [shown.add(said[at : at + size]) for at in range(0, len(said), size)]
        streamed = "".join(pieces) + shown.rest(heard.text)
        assert streamed.strip() == heard.text, name


@pytest.mark.parametrize("text", ["Hello.\n\nIt is {not} a call, < nor this.\n", "Act one: none", "<b>bold</b>", "`a`"])
def test_an_answer_is_streamed_wholly(text: str) -> None:
    shown = Shown(["read_file"])

    assert "".join(map(shown.add, text)) + shown.rest(text) == text
    assert "".join(map(Shown([]).add, text)) == text
