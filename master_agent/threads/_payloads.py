"""From a place in a text to the tool calls that are written there: as JSON, as tags, or as a call in Python.

Models write these however they were trained to, and with slips. What only lacks brackets at its end is mended; what
breaks off within a text is not, for half of a file would be saved.
"""

import ast
import io
import json
import re
import tokenize
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from master_agent.brackets import DEEPEST, region
from master_agent.threads import ToolSpec

LONGEST = 200_000  # characters that are mended
NAME = r"[A-Za-z_][\w.-]{0,63}"

_NAMES = ("name", "tool_name", "tool", "function", "function_name", "action")
_ARGUMENTS = ("arguments", "parameters", "args", "input", "params", "tool_input", "action_input", "kwargs")
_BESIDE = {"id", "type", "call_id", "tool_call_id"}
_INSIDE = ("function", "tool_call", "function_call")
_LISTS = ("tool_calls", "calls")
_PREFIX = re.compile(r"(functions?|tools?|default_api|multi_tool_use)\.")
_TAGGED = re.compile(
    rf"(?:<function\s*=\s*|<invoke\s+name\s*=\s*)[\"']?(?P<name>{NAME})[\"']?\s*>|(?P<bare>{NAME})\s*(?=<arg_key>)"
)
_PARAMETER = re.compile(
    r"\s*<parameter(?:\s*=\s*|\s+name\s*=\s*)[\"']?(?P<name>[\w.-]+)[\"']?\s*>\n?"
    r"|\s*<arg_key>\s*(?P<key>[\w.-]+)\s*</arg_key>\s*<arg_value>\n?"
)
_VALUE_END = re.compile(
    r"\n?(?:</parameter>|</arg_value>|(?=<parameter[\s=])|(?=</function>)|(?=</invoke>)|(?=</tool_call>))"
)
_FUNCTION_END = re.compile(r"\s*(?:</function>|</invoke>)")
_LEADING = re.compile(
    rf"(?P<name>{NAME})(?::\d+)?(?:\[CALL_ID\][\w-]*)?(?:\[ARGS\]|<\|tool_call_argument_begin\|>)?"
    r"\s*(?:```\w*\s*)?(?=\{)"
)
_CALLED = re.compile(rf"(?:print\s*\(\s*)?(?P<name>{NAME})\s*(?=\()")
_JSON_SIGN = re.compile(r"\"(?:\\.|[^\"\\])*\"|[{}\[\]]|,(?=\s*[}\]])", re.DOTALL)
_WORDS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class Wanted:
    """A tool that a text asks for; `arguments` is JSON, or what was written in its place."""

    name: str
    arguments: str = "{}"


@dataclass(frozen=True)
class Found:
    """The calls that stand at a place, and where the last of them ends."""

    calls: tuple[Wanted, ...]
    end: int


@dataclass(frozen=True)
class Tools:
    """The tools of an agent, as calls of them are looked for."""

    specs: Mapping[str, ToolSpec]

    def known(self, name: str) -> str:
        """The tool's own name where a text puts `functions.` or the like before it; else the name as it is."""
        short = _PREFIX.sub("", name, count=1)
        return short if name not in self.specs and short in self.specs else name

    def has(self, name: str) -> bool:
        return self.known(name) in self.specs

    def parameters(self, name: str) -> Mapping[str, Any]:
        """The properties of the tool's arguments, in order; none for a tool that is not known."""
        spec = self.specs.get(self.known(name))
        return {} if spec is None else spec.parameters.get("properties", {})


def payload(text: str, start: int, stop: int, tools: Tools) -> Found | None:
    """The calls at `start`, before `stop`, where a mark has announced some; their names may be unknown ones."""
    if _TAGGED.match(text, start):
        return tagged(text, start, tools)
    if text[start : start + 1] in ("{", "["):
        return written(text, start, stop, tools, sure=True) or called(text, start, stop, tools)
    if leading := _LEADING.match(text, start):
        inner = given(leading["name"], text, leading.end(), stop, tools)
        if inner is not None:
            return inner
    return called(text, start, stop, tools)


def given(name: str, text: str, start: int, stop: int, tools: Tools) -> Found | None:
    """The call of a tool whose arguments are the JSON object at `start`."""
    value = _value(text, start, stop)
    if value is None or not isinstance(value[0], dict):
        return None
    return Found((_wanted(name, value[0], tools),), value[1])


def written(text: str, start: int, stop: int, tools: Tools, *, sure: bool) -> Found | None:
    """The calls that the JSON at `start` is; `sure` says that a mark has announced them."""
    value = _value(text, start, stop)
    calls = None if value is None else _calls_in(value[0], tools, sure)
    return None if value is None or not calls else Found(tuple(calls), value[1])


def tagged(text: str, start: int, tools: Tools) -> Found | None:
    """The call in tags at `start`: a function with JSON in it, or with a tag for each parameter."""
    head = _TAGGED.match(text, start)
    if head is None:
        return None
    name, position, arguments = head["name"] or head["bare"], head.end(), dict[str, Any]()
    inside = re.compile(r"\s*(?=\{)").match(text, position)
    if inside and (value := _value(text, inside.end(), len(text))) is not None and isinstance(value[0], dict):
        arguments, position = value
    types = tools.parameters(name)
    while parameter := _PARAMETER.match(text, position):
        end = _VALUE_END.search(text, parameter.end())
        if end is None:  # nothing says that this is all of it
            return None
        key = parameter["name"] or parameter["key"]
        arguments[key] = _typed(text[parameter.end() : end.start()], types.get(key))
        position = end.end()
    close = _FUNCTION_END.match(text, position)
    if close is None and not arguments:
        return None
    return Found((_wanted(name, arguments, tools),), close.end() if close else position)


def called(text: str, start: int, stop: int, tools: Tools) -> Found | None:
    """The calls that stand at `start` as Python has them: `tool(a=1)`, a list of such, or `tool({…})`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a backslash in a text is no concern of ours
        end = _python_end(text, start)
        body = None if end is None else _expression(text[start:end])
    if end is not None and body is not None:
        try:
            nodes = body.elts if isinstance(body, ast.List | ast.Tuple) else [body]
            calls = [_call_of(node, tools) for node in nodes]
            return Found(tuple(calls), end) if calls else None
        except (ValueError, RecursionError):
            pass
    head = _CALLED.match(text, start)
    inside = None if head is None else re.compile(r"\(\s*(?=\{)").match(text, head.end())
    value = None if inside is None else _value(text, inside.end(), stop)
    if head is None or value is None or not isinstance(value[0], dict):
        return None
    close = re.compile(r"\s*\)").match(text, value[1])
    return Found((_wanted(head["name"], value[0], tools),), close.end() if close else value[1])


def in_words(name: str, words: str, tools: Tools) -> Wanted:
    """A call whose arguments came as plain words: those of the one argument that the tool needs, where it is a text."""
    spec = tools.specs.get(tools.known(name))
    required = [one for one in spec.parameters.get("required", ()) if one != "last"] if spec else []
    plain = words.strip()
    if len(plain) > 1 and plain[0] == plain[-1] and plain[0] in "\"'`":
        plain = plain[1:-1]
    if len(required) == 1 and tools.parameters(name).get(required[0], {}).get("type") == "string":
        return _wanted(name, {required[0]: plain}, tools)
    return Wanted(tools.known(name), plain or "{}")


def _value(text: str, start: int, stop: int) -> tuple[Any, int] | None:
    """The JSON value at `start` and where it ends, its slips mended; None where there is none or half of one."""
    if text[start : start + 1] not in ("{", "["):
        return None
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, start)  # a text may run over lines
    except (ValueError, RecursionError):
        pass
    cut = text[:stop]
    found = region(cut, start)
    if found.quoted or (found.end is None and found.depth > 3):  # so deep, something else is wrong with it
        return None
    end = stop if found.end is None else found.end
    if end - start > LONGEST:
        return None
    value = _mended(cut[start:end])
    return (value, end) if isinstance(value, dict | list) and value else None


def _mended(written: str) -> Any:
    """What a text is that is nearly JSON; None where it is nothing like it."""
    try:
        return json.loads(_closed(written), strict=False)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = _expression(written)
        return _constant(body) if body is not None else _repaired(written)
    except (ValueError, RecursionError):
        return _repaired(written)


def _closed(written: str) -> str:
    """JSON without commas that nothing follows, and with the brackets at its end that are missing."""
    signs, missing, position = list[str](), list[str](), 0
    for sign in _JSON_SIGN.finditer(written):
        signs.append(written[position : sign.start()])
        position = sign.end()
        found = sign[0]
        if found in ("{", "["):
            missing.append("}" if found == "{" else "]")
        elif found in ("}", "]") and missing and missing[-1] == found:
            missing.pop()
        signs.append("" if found.startswith(",") else found)
    return "".join([*signs, written[position:].rstrip().removesuffix(","), *reversed(missing)])


def _repaired(written: str) -> Any:
    import json_repair

    try:
        return json_repair.loads(written)
    except (ValueError, RecursionError):
        return None


def _calls_in(value: Any, tools: Tools, sure: bool) -> list[Wanted] | None:
    """The calls that a JSON value is; None where it is anything else. Where nothing announced them, names are known."""
    if isinstance(value, list):
        each = [_calls_in(item, tools, sure) for item in value]
        return None if not each or None in each else [call for calls in each if calls for call in calls]
    if not isinstance(value, dict):
        return None
    for name in _LISTS:
        if isinstance(value.get(name), list):
            return _calls_in(value[name], tools, sure)
    for name in _INSIDE:
        if isinstance(value.get(name), dict):
            return _calls_in(value[name], tools, sure)
    call = _call_in(value, tools, sure)
    return None if call is None else [call]


def _call_in(value: Mapping[str, Any], tools: Tools, sure: bool) -> Wanted | None:
    key = next((key for key in _NAMES if isinstance(value.get(key), str)), None)
    if key is None:
        name, inside = next(iter(value.items())) if len(value) == 1 else ("", None)
        return _wanted(name, inside, tools) if sure and tools.has(name) and isinstance(inside, dict) else None
    name = value[key].strip()
    if not re.fullmatch(NAME, name) or not (sure or tools.has(name)):
        return None
    given = next((one for one in _ARGUMENTS if one in value), None)
    if given is not None:
        arguments = value[given]
        schema = isinstance(arguments, dict) and arguments.get("type") == "object" and "properties" in arguments
        return None if schema else _wanted(name, arguments, tools)  # a tool's description, said again, calls nothing
    rest = {one: part for one, part in value.items() if one != key and one not in _BESIDE}
    return _wanted(name, rest, tools) if not rest or (sure and tools.has(name)) else None


def _wanted(name: str, arguments: Any, tools: Tools) -> Wanted:
    """The call with its arguments as JSON, whether they came as an object, as a text that holds one, or not at all."""
    if isinstance(arguments, str):
        inner = _value(arguments, len(arguments) - len(arguments.lstrip()), len(arguments))
        if inner is None or arguments[inner[1] :].strip():
            return Wanted(tools.known(name), arguments.strip() or "{}")
        arguments = inner[0]
    return Wanted(tools.known(name), json.dumps({} if arguments is None else arguments, ensure_ascii=False))


def _typed(written: str, schema: Mapping[str, Any] | None) -> Any:
    """What a tag holds, as its parameter has it: text stays text, anything else is read as JSON where it is some."""
    kinds = [schema or {}, *(schema or {}).get("anyOf", ())]
    if any(kind.get("type") == "string" for kind in kinds):
        return written
    try:
        return json.loads(written)
    except (ValueError, RecursionError):
        return {"True": True, "False": False, "None": None}.get(written.strip(), written)


def _python_end(text: str, start: int) -> int | None:
    """After the bracket that closes the call or the list at `start`; None where none does."""
    source, lengths, depth = io.StringIO(text[start : start + LONGEST], newline=""), list[int](), 0

    def line() -> str:
        read = source.readline()
        lengths.append(len(read))
        return read

    try:
        for token in tokenize.generate_tokens(line):
            if token.type == tokenize.OP and token.string in ("(", "[", "{"):
                depth += 1
                if depth > DEEPEST:
                    return None
            elif token.type == tokenize.OP and token.string in (")", "]", "}"):
                depth -= 1
                if depth == 0:
                    row, column = token.end
                    return start + sum(lengths[: row - 1]) + column
            elif depth == 0 and token.type not in (tokenize.NAME, tokenize.OP):
                return None
    except (tokenize.TokenError, SyntaxError, ValueError):
        pass
    return None


def _expression(source: str) -> ast.expr | None:
    """What Python reads in a text; None where it can read nothing."""
    try:
        return ast.parse(source.strip(), mode="eval").body
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _call_of(node: ast.expr, tools: Tools) -> Wanted:
    """One call; ValueError where it is none, or is more than names and values."""
    if not isinstance(node, ast.Call):
        raise ValueError("no call")
    name = ast.unparse(node.func)
    if name == "print" and not tools.has(name) and len(node.args) == 1 and not node.keywords:
        return _call_of(node.args[0], tools)
    if not re.fullmatch(NAME, name):
        raise ValueError("no name")
    arguments = {one.arg: _constant(one.value) for one in node.keywords if one.arg is not None}
    values = [_constant(one) for one in node.args]
    if len(values) == 1 and isinstance(values[0], dict) and not arguments:
        return _wanted(name, values[0], tools)
    places = list(tools.parameters(name))
    if len(arguments) < len(node.keywords) or len(values) > len(places):
        raise ValueError("arguments without names")
    return _wanted(name, {**dict(zip(places, values, strict=False)), **arguments}, tools)


def _constant(node: ast.expr) -> Any:
    """The value of a literal; JSON's words are read too. ValueError for anything that would have to be run."""
    match node:
        case ast.Name(id=word) if word in _WORDS:
            return _WORDS[word]
        case ast.Constant(value=value) if value is None or isinstance(value, str | int | float | bool):
            return value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_constant(item) for item in items]
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {str(_constant(key)): _constant(value) for key, value in zip(keys, values, strict=True) if key}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = _constant(operand)
            if isinstance(value, int | float):
                return -value
    raise ValueError("no literal")
