"""From a text that a model wrote to the tools that it asks for in it, in whichever of the usual shapes it does so.

Marked calls (`<tool_call>…`, `[TOOL_CALLS]…`, `<|python_tag|>…`, `<function=…>`, `Action: …`) may name any tool: one
that does not exist is told so. Unmarked ones (JSON, bare or fenced, and `[tool(a=1)]`) count only for tools that the
agent has. What follows the calls is what the model imagines their results to be, and is left out.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from master_agent.brackets import region
from master_agent.threads import ToolSpec
from master_agent.threads._payloads import NAME, Found, Tools, Wanted, called, given, in_words, payload, written

CALL_MARKS = (
    "<tool_calls>", "<tool_call>", "<|tool_call|>", "<|tool_call_start|>", "<|tool_calls_section_begin|>",
    "<function_calls>", "<function_call>", "<functioncall>", "<|python_tag|>", "<|action_start|>",
    "<|tool_call_begin|>", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
    "<minimax:tool_call>", "[TOOL_CALLS]", "[TOOL_REQUEST]", "<tools>", "functools[", "<invoke name=", "<function=",
)  # fmt: skip
_NAMED_MARKS = ("<invoke name=", "<function=")  # a tool's name is in them
_WEAK_MARKS = ("<tools>", "functools[")  # what begins so may be something else
_MARK = "|".join(re.escape(mark) for mark in CALL_MARKS)
_CLOSERS = (
    r"</tool_calls>|</tool_call>|<\|/tool_call\|>|<\|tool_call_end\|>|</function_calls>|</function_call>"
    r"|</functioncall>|\[/TOOL_CALLS\]|\[END_TOOL_REQUEST\]|</tools>|</function>|</invoke>|</minimax:tool_call>"
    r"|<\|tool_calls_section_end\|>|<｜tool▁calls?▁end｜>"
)
_END = r"<\|(?:im_end|eom_id|eot_id|end|endoftext)\|>|</s>"
_LINE = r"^[ \t]*"
_KEYS = r"[\"'](?:name|tool|tool_name|function|tool_calls?|action|type|id)[\"']\s*:"
_OPENINGS = (
    rf"(?P<mark>{_MARK})|(?P<fence>{_LINE}```)"
    rf"|(?P<react>{_LINE}\**Action\**:\**)(?:[ \t]*[`\[]?(?P<action>{NAME})|\s*(?P<block>(?=[{{`])))"
    rf"|{_LINE}(?P<json>[{{\[])|(?P<inline>\{{(?=\s*{_KEYS}))|{_LINE}(?P<call>{NAME})(?=\()"
)
_OPENING = re.compile(_OPENINGS, re.MULTILINE)
_NEXT = re.compile(_OPENINGS.replace(_LINE, r"[ \t]*"))  # after a call, another need not begin a line
MOST_OPENINGS = 100  # places that are looked at
_FENCE = re.compile(
    r"[ \t]*```(?P<kind>[^\n`{\[]*)\s*(?P<inside>.*?)(?:^[ \t]*```[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)
_DATA_FENCES = ("", "json", "jsonc", "json5", "tool_call", "tool_calls", "tool", "tool_code", "xml", "python", "text")
_SAYING_FENCES = ("", "json", "tool_call", "tool_calls", "tool", "tool_code", "xml")  # code in others is an answer
_CALL_FENCES = ("", "tool_code", "python")
_BETWEEN = re.compile(rf"(?:\s|,|;|{_CLOSERS}|{_END})*")
_INVENTED = re.compile(
    r"^[ \t]*\**(?:Observation|Tool Result|Tool Output|Result|Output)\**:|<tool_response>|<\|tool_response|"
    r"\[TOOL_RESULTS?\]|<function_results?>|^[ \t]*(?:Thought|Final Answer):",
    re.MULTILINE | re.IGNORECASE,
)
_FENCES = re.compile(f"^{_FENCE.pattern}", _FENCE.flags)
_CLOSER = re.compile(rf"{_CLOSERS}|{_END}")
_MARKED = re.compile(_MARK)
_INNER_MARKS = re.compile(
    rf"(?:\s|{'|'.join(re.escape(one) for one in CALL_MARKS if one not in _NAMED_MARKS)}|```\w*)*"
)
_BLOCK = re.compile(r"\s*(?:```\w*\s*)?(?=\{)")
_FENCE_END = re.compile(r"\s*```")
_ACTION_END = re.compile(r"[`\]]?\**[ \t]*(?=\{|$)", re.MULTILINE)
_INPUT = re.compile(r"[`\]]?[ \t]*+\**+\s*^[ \t]*\**Action Input\**:\**[ \t]*", re.MULTILINE)
_FINAL = re.compile(r"^[ \t]*\**Final Answer\**:\**[ \t]*", re.MULTILINE)
_NO_ACTION = re.compile(r"(?:none|n/?a|nothing|no|finish|final|answer)\b", re.IGNORECASE)
_THOUGHT = re.compile(r"\s*<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)\s*", re.DOTALL)
_THOUGHT_END = re.compile(r"\A(?:(?!<think).)*?</think>\s*", re.DOTALL)
QUOTED = 200  # characters of what could not be read


@dataclass(frozen=True)
class Heard:
    """What a text says: words, then calls. `kept` is the text up to where its calls end; `fault` begins a broken one.

    With neither calls nor a fault, `text` is the answer.
    """

    text: str
    calls: tuple[Wanted, ...] = ()
    kept: str = ""
    fault: str = ""


def without_thought(text: str) -> str:
    """The text without what the model thought before it; all of it was a thought where that has no end."""
    thought = _THOUGHT.match(text)
    if thought is None:
        return _THOUGHT_END.sub("", text, count=1)
    return text[thought.end() :]


def hear(text: str, specs: Iterable[ToolSpec], *, eager: bool = False) -> Heard:
    """What a text says. `eager` takes the name of a tool, used as if to call it, for a call that cannot be read."""
    said = without_thought(text)
    tools = Tools({spec.name: spec for spec in specs})
    if not tools.specs:
        return Heard(said, kept=said)
    heard = _Text(said, tools).heard(eager=eager)
    if not said.strip() and (thought := _MARKED.search(text)):
        return Heard(said, fault=_quote(text, thought.start()))  # a call that was only thought of is none
    return heard


class _Text:
    """A text that may hold calls of these tools."""

    def __init__(self, text: str, tools: Tools) -> None:
        self.text, self.tools = text, tools

    def heard(self, *, eager: bool) -> Heard:
        """The first calls, with all that follow on them; or a fault, or the answer."""
        text, fault = self.text, ""
        final = _FINAL.search(text)
        for opening in self.openings(final.start() if final else len(text)):
            found = self.read(opening)
            if found is not None:
                found = self.with_following(found)
                return Heard(text[: opening.start()].rstrip(), found.calls, text[: found.end].rstrip())
            acts = bool(opening["action"]) and self.tools.has(opening["action"])
            acts = acts and (eager or text.startswith("(", opening.end()))
            if acts or (opening["mark"] and opening["mark"] not in _WEAK_MARKS):
                fault = fault or _quote(text, opening.start())
        fault = fault or (_mention(text, self.tools) if eager else "")
        return Heard(text if final is None or fault else text[final.end() :].strip(), kept=text, fault=fault)

    def openings(self, end: int) -> Iterator[re.Match[str]]:
        """Where a call may begin. What is inside a block of code or a value that is no call is not looked at."""
        position = 0
        for _ in range(MOST_OPENINGS):
            opening = _OPENING.search(self.text, position)
            if opening is None or opening.start() >= end:
                return
            position = max(opening.end(), opening.start() + 1)
            yield opening
            if opening["fence"]:
                block = _FENCE.match(self.text, opening.start())
                position = block.end() if block else position
            elif (at := _json_at(opening)) >= 0:
                position = region(self.text, at).end or position

    def read(self, opening: re.Match[str]) -> Found | None:
        """The calls that begin at an opening, if there are any."""
        if opening["mark"]:
            if opening["mark"] in _NAMED_MARKS:
                return self.marked(opening.start())
            return self.marked(opening.end() - opening["mark"].endswith("["))
        if opening["fence"]:
            return self.fenced(opening.start())
        if opening["react"]:
            return self.acted(opening)
        if (at := _json_at(opening)) >= 0:
            found = written(self.text, at, self.stop(at), self.tools, sure=False)
            return found or (self.known_call(at) if self.text[at] == "[" else None)
        return self.known_call(opening.start("call")) if self.tools.has(opening["call"]) else None

    def marked(self, at: int) -> Found | None:
        """The calls behind a mark, whatever other marks and fences stand before them."""
        inner = _INNER_MARKS.match(self.text, at)
        at = inner.end() if inner else at
        return self.unfenced(payload(self.text, at, min(self.stop(at), self.close(at)), self.tools))

    def fenced(self, start: int) -> Found | None:
        """The calls that a block of code is: all of it, and under no file's name."""
        block = _FENCE.match(self.text, start)
        if block is None or (kind := block["kind"].strip().lower()) not in _DATA_FENCES:
            return None
        at, calls = block.start("inside"), list[Wanted]()
        while at < len(self.text) and not self.text.startswith("```", at):
            opening = _NEXT.match(self.text, at)
            if opening is None:
                return None
            if opening["call"] and kind not in _CALL_FENCES:
                return None
            found = self.known_call(at) if opening["call"] else self.read(opening)
            if found is None:
                return None
            calls += found.calls
            at = self.after(found.end)
        return Found(tuple(calls), min(at + 3, len(self.text))) if calls else None

    def acted(self, opening: re.Match[str]) -> Found | None:
        """The call of a line `Action: …`, in any of the ways in which its input is written."""
        text, name, at = self.text, opening["action"], opening.end()
        if not name:
            return self.marked(at) if _BLOCK.match(text, at) else None
        if text[at : at + 1] == "(":
            return called(text, opening.start("action"), self.stop(at), self.tools)
        if given := _INPUT.match(text, at):
            end = self.stop(given.end())
            words = Found((in_words(name, text[given.end() : end], self.tools),), end)
            return self.arguments(name, given.end()) or words
        rest = _ACTION_END.match(text, at)
        if rest is None or _NO_ACTION.match(name):
            return None
        nothing = Found((Wanted(self.tools.known(name)),), at) if self.tools.has(name) else None
        return self.arguments(name, rest.end()) or nothing

    def arguments(self, name: str, at: int) -> Found | None:
        """The call of a tool whose arguments stand at a place as one JSON object, fenced or not."""
        start = _BLOCK.match(self.text, at)
        if start is None:
            return None
        found = given(name, self.text, start.end(), self.stop(at), self.tools)
        return self.unfenced(found) if "```" in start[0] else found

    def with_following(self, found: Found) -> Found:
        """With the calls that follow on these without a word between."""
        while True:
            at = self.after(found.end)
            opening = _NEXT.match(self.text, at)
            more = self.read(opening) if opening else None
            if more is None:
                return Found(found.calls, at)
            found = Found((*found.calls, *more.calls), more.end)

    def known_call(self, at: int) -> Found | None:
        """The calls as Python has them, if every one is of a tool that there is."""
        found = called(self.text, at, self.stop(at), self.tools)
        return found if found and all(self.tools.has(call.name) for call in found.calls) else None

    def after(self, position: int) -> int:
        """After the tags and spaces that close a call."""
        between = _BETWEEN.match(self.text, position)
        return between.end() if between else position

    def unfenced(self, found: Found | None) -> Found | None:
        """With the end of the block of code that it stood in."""
        fence = _FENCE_END.match(self.text, found.end) if found else None
        return Found(found.calls, fence.end()) if found and fence else found

    def stop(self, position: int) -> int:
        """Where the model begins to play the tool's part, or the next one's; the end of the text if it does not."""
        return _next(self._inventions, position, len(self.text))

    def close(self, position: int) -> int:
        """Where the next closing tag is; the end of the text if there is none."""
        return _next(self._closers, position, len(self.text))

    @cached_property
    def _inventions(self) -> list[int]:
        return [found.start() for found in _INVENTED.finditer(self.text)]

    @cached_property
    def _closers(self) -> list[int]:
        return [found.start() for found in _CLOSER.finditer(self.text)]


def _next(places: list[int], position: int, end: int) -> int:
    at = bisect_left(places, position)
    return places[at] if at < len(places) else end


def _json_at(opening: re.Match[str]) -> int:
    """Where the JSON of an opening begins; -1 where it is another kind."""
    return max(opening.start("json"), opening.start("inline"))


def _quote(text: str, start: int) -> str:
    return text[start : start + QUOTED].strip()


def _mention(text: str, tools: Tools) -> str:
    """Where a tool's name stands as if to call it, outside of blocks of code; empty if nowhere."""
    plain = _FENCES.sub(lambda block: block[0] if block["kind"].strip().lower() in _SAYING_FENCES else "", text)
    for name in tools.specs:
        word = re.escape(name)
        before_arguments = rf"(?:^|[\s\"'>=|:@\[{{(]){word}\s?[({{]"
        as_a_value = rf"[=>|:@]\s*[\"']?{word}[\"']?\s*(?:[<|,}}\]\n({{]|$)"
        used = re.search(f"{before_arguments}|{as_a_value}", plain)
        if used:
            return _quote(plain, max(0, used.start() - 40))
    return ""
