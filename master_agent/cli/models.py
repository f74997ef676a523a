"""From settings to the wire and the models that a run speaks to, with the reason for each choice."""

from dataclasses import dataclass, replace

from master_agent.cli import local
from master_agent.context import Boundaries
from master_agent.errors import ModelError, SettingsError
from master_agent.openai_server import Server
from master_agent.prompts import Prompts
from master_agent.settings import Settings, WireName
from master_agent.threads import Capabilities, Wire

PLANNER_MODEL, AGENT_MODEL = "gpt-6-sol", "gpt-6-luna"  # OpenAI's, without a shutdown date as of 2026-11


Words = tuple[Prompts, Boundaries]
"""Where a wire finds what it tells a model, and the marks it puts around data."""


@dataclass(frozen=True)
class Models:
    """Who is asked: the wire, the model of the agents and the planner's; `why` says in a line how it was chosen."""

    wire: Wire
    agents: str | None
    planner: str | None
    why: str


def nobody() -> Models:
    """For a plan of tools alone: a script without a line, so that no key is needed for what asks no model."""
    from master_agent.threads.scripted import Script, Scripted

    return Models(Scripted(Script([])), None, None, "no model is asked")


def in_words(chosen: Models, words: Words) -> Models:
    """The same, understood too where a model calls tools in its text; for wires that keep their threads here."""
    from master_agent.threads.chat import Chat
    from master_agent.threads.scripted import Scripted
    from master_agent.threads.spoken import Spoken

    wire = chosen.wire
    return replace(chosen, wire=Spoken(wire, *words)) if isinstance(wire, Chat | Scripted) else chosen


def wire_name(settings: Settings) -> tuple[WireName, str]:
    """The wire to use, and why."""
    if settings.script is not None:
        return "scripted", f"replies come from the script {settings.script}"
    if settings.wire is not None:
        return settings.wire, f"wire {settings.wire} ({settings.origins['wire']})"
    if settings.own_server:
        return "chat", "wire chat, which every compatible server speaks"
    return "responses", "wire responses, at OpenAI's own address"


async def choose(settings: Settings, words: Words | None = None) -> Models:
    """The wire and the models that the settings choose; ModelError when there is no model to talk to.

    `words` are for what the assistants wire tells of a run that had to begin anew.
    """
    name, why = wire_name(settings)
    if name == "scripted":
        return Models(_scripted(settings), settings.model, settings.planner_model, why)
    if settings.model is not None and local.is_local(settings.model):
        return await embedded(settings, settings.model)
    if settings.openai_api_key is None and settings.openai_base_url is None:
        raise ModelError(
            "there is no model to talk to: no OPENAI_API_KEY, and no OPENAI_BASE_URL of another server",
            type="no_model",
            hint="Put OPENAI_API_KEY=… into .env (master-agent init asks for it), point OPENAI_BASE_URL at a server "
            "such as Ollama (http://localhost:11434/v1), or try without any: master-agent demo",
        )
    model = settings.model or (None if settings.own_server else AGENT_MODEL)
    wire = _wire(name, settings, model or "", words)
    if model is None:
        try:
            model = _only_model(await wire.models(), settings)
        finally:
            await wire.close()
        wire = _wire(name, settings, model, words)
    planner = settings.planner_model or settings.model or (model if settings.own_server else PLANNER_MODEL)
    address = Server(settings.openai_base_url).shown
    return Models(wire, model, planner, f"{why}, at {address}" if settings.own_server else why)


async def embedded(settings: Settings, model: str) -> Models:
    """A model that is run here, by the name that it was asked for."""
    file = local.found(settings, model)
    wire = await local.open_wire(settings, file)
    context = f"{wire.capabilities.context:,} tokens for each of {wire.engine.slots} requests at once"
    return Models(wire, file.name, file.name, f"the embedded engine runs {file.path}, {context}")


def _wire(name: WireName, settings: Settings, model: str, words: Words | None) -> Wire:
    key, address = settings.openai_api_key, settings.openai_base_url
    match name:
        case "responses":
            from master_agent.threads.responses import Responses

            return Responses(key, address, model, store=settings.thread_store)
        case "assistants":
            from master_agent.threads.assistants import Assistants, as_data, in_words

            return Assistants(key, address, model, retell=in_words(*words) if words else as_data)
    from master_agent.threads.chat import Chat

    able = Capabilities(tool_calls="either") if Server(address).is_near else None
    return Chat(key, address, model, capabilities=able)


def _scripted(settings: Settings) -> Wire:
    from master_agent.threads.scripted import Scripted, read_script

    if settings.script is None:
        raise SettingsError("the wire is scripted, but there is no script", hint="Name its file: --script FILE")
    try:
        content = settings.script.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the script {settings.script} cannot be read: {error}") from None
    return Scripted(read_script(content, source=str(settings.script)))


def _only_model(models: list[str], settings: Settings) -> str:
    """The one model that a server of the user's own offers; ModelError when it offers several, or none."""
    if len(models) == 1:
        return models[0]
    offered = f"it offers {', '.join(models[:12])}" if models else "it names none"
    raise ModelError(
        f"which model of {Server(settings.openai_base_url).shown}? {offered}",
        type="no_model",
        hint="Choose one: --model NAME, or MASTER_AGENT_MODEL=NAME in .env",
    )
