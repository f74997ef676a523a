"""From settings and a provider to the wire that speaks to it, and why that one."""

from typing import TYPE_CHECKING

from master_agent.cli.reach import Reached
from master_agent.context import Boundaries
from master_agent.errors import SettingsError
from master_agent.prompts import Prompts
from master_agent.providers import OPENAI, Provider
from master_agent.settings import Settings, WireName
from master_agent.threads import Capabilities, Wire

if TYPE_CHECKING:
    from master_agent.threads.spoken import OwnWire

Words = tuple[Prompts, Boundaries]
"""Where a wire finds what it tells a model, and the marks it puts around data."""


def wire_name(settings: Settings, row: Provider = OPENAI, *, several: bool = False) -> tuple[WireName, str]:
    """The wire to use with a provider, and why. Where a run has several, `chat` is what all of them speak."""
    if settings.script is not None:
        return "scripted", f"replies come from the script {settings.script}"
    if settings.wire is not None:
        return settings.wire, f"wire {settings.wire} ({settings.origins['wire']})"
    if several:
        return "chat", "wire chat, which all providers of this run speak"
    if row is not OPENAI or settings.own_server:
        return "chat", "wire chat, which every compatible server speaks"
    return "responses", "wire responses, at OpenAI's own address"


def make_wire(name: WireName, settings: Settings, reached: Reached, model: str, words: Words | None) -> Wire:
    """The wire of that name to a provider; `model` is for agents that name none."""
    server, able = reached.server, reached.capabilities(model)
    match name:
        case "scripted":
            return with_words(scripted(settings), words)
        case "responses":
            from master_agent.threads.responses import Responses

            return Responses(None, None, model, store=settings.thread_store, capabilities=able, server=server)
        case "assistants":
            from master_agent.threads.assistants import Assistants, as_data, in_words

            retell = in_words(*words) if words else as_data
            return Assistants(server.api_key, server.base_url, model, retell=retell)
    from master_agent.threads.chat import Chat

    if able is None and server.is_near:
        able = Capabilities(tool_calls="either")
    chat = Chat(None, None, model, capabilities=able, server=server)
    chat.knows(reached.capabilities)
    if settings.context_size is not None:
        chat.reads(settings.context_size)
    return with_words(chat, words)


def with_words(wire: "OwnWire", words: Words | None) -> Wire:
    """The wire, understood too where a model calls tools in its text; for wires that keep their threads here."""
    from master_agent.threads.spoken import Spoken

    return Spoken(wire, *words) if words else wire


def scripted(settings: Settings) -> "OwnWire":
    """The wire that answers from the script of the settings."""
    from master_agent.threads.scripted import Scripted, read_script

    if settings.script is None:
        raise SettingsError("the wire is scripted, but there is no script", hint="Name its file: --script FILE")
    try:
        content = settings.script.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the script {settings.script} cannot be read: {error}") from None
    return Scripted(read_script(content, source=str(settings.script)))
