"""What a model says, described once, and what makes of it the server or the script of each wire."""

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

from master_agent.threads import CallOptions, ModelToolCall, Turn, UserTurn, Wire
from master_agent.threads._accepted import UNSEEN
from master_agent.threads.assistants import Assistants
from master_agent.threads.chat import Chat
from master_agent.threads.responses import Responses, Store
from master_agent.threads.scripted import Script, Scripted, ScriptLine
from tests.servers import assistant_runs, chat, responses
from tests.servers.assistants import Asked, AssistantsServer
from tests.servers.chat import ChatServer
from tests.servers.loopback import Behaviour, Body, Loopback
from tests.servers.responses import ResponsesServer
from tests.threads.chatting import KEY, MODEL

READ, WRITTEN = 11, 7
"""The tokens of every request."""


@dataclass(frozen=True)
class Say:
    """What the model answers to one request: a text and calls, and how the answer ends."""

    text: str = ""
    calls: tuple[ModelToolCall, ...] = ()
    end: Literal["done", "cut off", "refused", "hangs"] = "done"


@dataclass(frozen=True)
class Told:
    """What a request brought to the model: words, or outputs by the ids of their calls, and pictures by name."""

    step: str
    words: str | dict[str, str]
    pictures: tuple[str, ...] = ()


@dataclass
class Model:
    """The model behind every wire: what it says by step, in order, and all that it was told."""

    lines: Mapping[str, Sequence[Say]]
    told: list[Told] = field(default_factory=list)
    _said: dict[str, int] = field(default_factory=dict)

    def answer(self, told: Told) -> Say:
        """The next answer for that step."""
        number = self._said.get(told.step, 0)
        self._said[told.step] = number + 1
        say = self.lines[told.step][number]
        self.told.append(told)
        return say


@dataclass(frozen=True)
class Side:
    """A wire, and what is at its other end; `connect` makes a wire as a new process does."""

    connect: Callable[[], Wire]
    server: Loopback | None
    faults: Callable[[], list[str]]
    sees: bool = True

    def left_over(self) -> list[str]:
        """What goes on though nobody waits for it."""
        left = [f"{self.server.open_requests} requests"] if self.server and self.server.open_requests else []
        return left + (self.server.running if isinstance(self.server, AssistantsServer) else [])


def step_of(text: str) -> str:
    """Whose conversation it is; the prompts of all steps say so."""
    found = re.search(r"Do step (\w+)\.", text)
    assert found, text
    return found.group(1)


@contextlib.contextmanager
def chat_side(model: Model) -> Iterator[Side]:
    def brain(body: Body) -> Behaviour:
        messages = body["messages"]
        last = max((i for i, one in enumerate(messages) if one["role"] == "assistant"), default=0)
        outputs = {one["tool_call_id"]: one["content"] for one in messages[last:] if one["role"] == "tool"}
        asked = messages[-1]["content"] if messages[-1]["role"] == "user" else ""
        words, pictures = _seen(asked, "image_url", whole=not outputs)
        say = model.answer(Told(step_of(json.dumps(messages)), outputs or words, pictures))
        if say.end == "hangs":
            return chat.hang_mid_stream(say.text)
        calls = [chat.call(one.name, one.arguments, one.id) for one in say.calls]
        refusal = say.text if say.end == "refused" else None
        usage = {"prompt_tokens": READ, "completion_tokens": WRITTEN}
        finish = "length" if say.end == "cut off" else None
        text = "" if refusal else say.text
        return chat.reply(text, calls=calls, refusal=refusal, finish_reason=finish, usage=usage)

    with ChatServer(brain) as server:
        yield Side(lambda: Chat(KEY, server.base_url, MODEL), server, lambda: server.faults)


def responses_side(store: Store) -> Callable[[Model], AbstractContextManager[Side]]:
    @contextlib.contextmanager
    def side(model: Model) -> Iterator[Side]:
        def brain(items: list[Body], _: Body) -> responses.Answer:
            ours = ("user", "function_call_output")
            last = max((i for i, one in enumerate(items) if _kind(one) not in ours), default=-1)
            told: dict[str, str] = {}
            words: str | dict[str, str] = told
            pictures: tuple[str, ...] = ()
            for item in items[last + 1 :]:
                text, shown = _seen(item.get("content") or item.get("output"), "input_image")
                pictures += shown
                if _kind(item) == "user":
                    words = text
                else:
                    told[item["call_id"]] = text
            say = model.answer(Told(step_of(json.dumps(items)), words, pictures))
            if say.end == "hangs":
                return responses.hang_mid_stream(say.text)
            calls = [responses.call(one.name, one.arguments, one.id) for one in say.calls]
            refusal = say.text if say.end == "refused" else None
            usage = {"input_tokens": READ, "output_tokens": WRITTEN}
            text = "" if refusal else say.text
            if say.end == "cut off":
                return responses.reply(text, status="incomplete", reason="max_output_tokens", usage=usage)
            return responses.reply(text, calls=calls, refusal=refusal, usage=usage)

        with ResponsesServer(brain) as server:
            yield Side(lambda: Responses(KEY, server.base_url, MODEL, store=store), server, lambda: server.faults)

    return side


def _kind(item: Body) -> str:
    """user, assistant, function_call, function_call_output, …"""
    return str(item["role"] if item.get("type") == "message" else item["type"])


@contextlib.contextmanager
def assistants_side(model: Model) -> Iterator[Side]:
    rounds: dict[str, int] = {}

    def brain(asked: Asked) -> assistant_runs.Act:
        step = step_of(json.dumps(asked.messages))
        rounds[step] = rounds[step] + 1 if asked.outputs else 1
        seen = {one["tool_call_id"]: _unseen(one["output"]) for one in asked.outputs}
        words, pictures = _unseen(asked.messages[-1]["content"][0]["text"]["value"])
        outputs = {call: text for call, (text, _) in seen.items()}
        pictures = tuple(name for _, names in seen.values() for name in names) if outputs else pictures
        say = model.answer(Told(step, outputs or words, pictures))
        calls = [chat.call(one.name, one.arguments, one.id) for one in say.calls]
        usage = {"prompt_tokens": READ * rounds[step], "completion_tokens": WRITTEN * rounds[step]}  # it grows
        texts = (say.text,) if say.text and say.end != "refused" else ()
        match say.end:
            case "hangs":
                return assistant_runs.says(*texts, end="completed", looks=None, ends=False, hangs=True)
            case "refused":
                return assistant_runs.says(refusal=say.text, usage=usage)
            case "cut off":
                return assistant_runs.says(*texts, end="incomplete", reason="max_completion_tokens", usage=usage)
        return assistant_runs.says(*texts, calls=calls, usage=usage)

    with AssistantsServer(brain) as server:
        yield Side(lambda: Assistants(KEY, server.base_url, MODEL), server, lambda: server.bad_bodies, sees=False)


@contextlib.contextmanager
def scripted_side(model: Model) -> Iterator[Side]:
    class Listening(Script):
        """A script that the model's words are in, and that hears what the model is told."""

        def take(self, turn: Turn, options: CallOptions) -> ScriptLine:
            if isinstance(turn, UserTurn):
                words: str | dict[str, str] = turn.text
                pictures = turn.pictures
            else:
                words = {output.call_id: output.text for output in turn.outputs}
                pictures = tuple(picture for output in turn.outputs for picture in output.pictures)
            model.answer(Told(options.step or "", words, tuple(picture.name for picture in pictures)))
            return super().take(turn, options)

    lines = [{"step": step, "reply": _scripted(say)} for step, says in model.lines.items() for say in says]
    script = Listening([ScriptLine.model_validate(line) for line in lines])
    yield Side(lambda: Scripted(script), None, list)


def _scripted(say: Say) -> dict[str, Any]:
    usage = {"input_tokens": READ, "output_tokens": WRITTEN}
    calls = [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in say.calls]
    match say.end:
        case "hangs":
            return {"hang": True}
        case "refused":
            return {"status": "failed", "reason": f"refused: {say.text}", "usage": usage}
        case "cut off":
            return {"text": say.text, "status": "incomplete", "reason": "max_output_tokens", "usage": usage}
    return {"text": say.text, "calls": calls, "usage": usage}


def _seen(content: Any, kind: str, *, whole: bool = True) -> tuple[str, tuple[str, ...]]:
    """The words of a content, and the names of its pictures, each of which must stand before its picture.

    Unless it is `whole`, there are nothing but pictures in it.
    """
    if isinstance(content, str):
        return content, ()
    texts = [content[0]["text"]] if whole else []
    rest = content[len(texts) :]
    names, pictures = rest[::2], rest[1::2]
    assert [one["type"] for one in pictures] == [kind] * len(names)
    for picture in pictures:
        address = picture["image_url"]
        assert (address if isinstance(address, str) else address["url"]).startswith("data:image/png;base64,")
    return "".join(texts), tuple(one["text"] for one in names)


def _unseen(text: str) -> tuple[str, tuple[str, ...]]:
    """The words, and the names of the pictures of which they say that they cannot be shown."""
    lines = text.split("\n")
    named = [line for line in lines if line.endswith(UNSEEN)]
    return "\n".join(lines[: len(lines) - len(named)]), tuple(_names(named))


def _names(lines: Iterable[str]) -> Iterable[str]:
    return (line.removesuffix(UNSEEN).strip() for line in lines)


SIDES: dict[str, Callable[[Model], AbstractContextManager[Side]]] = {
    "scripted": scripted_side,
    "chat": chat_side,
    "responses": responses_side("response"),
    "responses in a conversation": responses_side("conversation"),
    "responses kept here": responses_side("none"),
    "assistants": assistants_side,
}
