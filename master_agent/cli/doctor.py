"""`doctor`: what is there, what is missing and what to do about it. Each "found" was contacted in this very call."""

import asyncio
import os
import platform
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import indent
from typing import Literal

import typer

from master_agent import __version__, embedded
from master_agent.cli import build, exit_codes, local, models, painters, programs, reach, session, streams
from master_agent.cli.models import Models
from master_agent.cli.options import Options, with_options
from master_agent.errors import MasterAgentError
from master_agent.openai_server import Server
from master_agent.providers import PROVIDERS
from master_agent.settings import PREFIX, Settings, config_folder, read_dotenv, state_folder, table
from master_agent.threads import Wire
from master_agent.threads.chat import Chat
from master_agent.threads.routed import Routed
from master_agent.values import nearest

Status = Literal["found", "missing", "wrong", "note"]
SECONDS = 10.0
LOADING = 300.0  # seconds for the model: one that runs here is loaded, as it is in a run


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: Status
    message: str
    hint: str | None = None


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command("doctor", help=_HELP)(doctor)


_HELP = """Looks at keys, servers, image providers and folders, and says what to do about what is missing.

Contacts each service that it calls found; shows no secret. Exit code 0 when there is a model to talk to, else 4.

\b
Examples:
  master-agent doctor
  master-agent doctor --openai-base-url http://localhost:11434/v1 --json
"""


@with_options(
    *("model", "planner_model", "openai_base_url", "local_server", "wire", "script", "image_provider"),
    *("workspace", "state_dir", "cache_dir", "no_exec", "exec_python", "exec_engine", "exec_image"),
    output=("json",),
)
def doctor(options: Options) -> int:
    settings = session.settings_of(options)
    findings = asyncio.run(_look(settings))
    if options.json:
        streams.print_object("doctor", program=__version__, findings=[asdict(finding) for finding in findings])
    else:
        for finding in findings:
            streams.write(f"{_MARKS[finding.status]:<8} {finding.name}: {finding.message}", hang=9)
            if finding.hint and finding.status != "found":
                streams.write(indent(finding.hint, " " * 9), hang=0)
    ready = {finding.status for finding in findings if finding.name == "model"} == {"found"}
    return exit_codes.DONE if ready else exit_codes.NO_MODEL


_MARKS = {"found": "ok", "missing": "missing", "wrong": "WRONG", "note": "note"}


async def _look(settings: Settings) -> list[Finding]:
    here = f"master-agent {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    findings = [Finding("program", "found", here), _team(settings), _config(), *_strays()]
    findings += [Finding("settings", "note", notice) for notice in settings.notices]
    findings += [_workspace(settings), _journal(settings), _engine(settings), *_proxy(settings)]
    looks = (("model", _model), ("local servers", _local_servers), ("pictures", _pictures), ("code", _code))
    for found in await asyncio.gather(*(_safely(name, look, settings) for name, look in looks)):
        findings += found
    return findings


async def _safely(name: str, look: Callable[[Settings], Awaitable[list[Finding]]], settings: Settings) -> list[Finding]:
    within = LOADING if look is _model else SECONDS
    try:
        async with asyncio.timeout(within):
            return await look(settings)
    except MasterAgentError as error:
        status: Status = "missing" if error.type == "no_model" else "wrong"
        return [Finding(name, status, error.message, error.hint)]
    except TimeoutError:
        hint = "Is the server up, and the address right?"
        return [Finding(name, "wrong", f"no answer within {within:g} seconds", hint)]


def _team(settings: Settings) -> Finding:
    try:
        team = session.team(settings)
    except MasterAgentError as error:
        return Finding("agents", "wrong", error.message, error.hint)
    return Finding("agents", "found", f"{', '.join(team.agents)}; tools: {', '.join(team.tools)}")


def _config() -> Finding:
    path = config_folder(os.environ) / "config.toml"
    if path.is_file():
        return Finding("config", "found", str(path))
    return Finding("config", "note", f"none at {path}", "master-agent init writes one.")


def _strays() -> list[Finding]:
    """Variables that look like settings and are none."""
    own = [setting.variable.removeprefix(PREFIX) for setting in table().values() if setting.variable.startswith(PREFIX)]
    known = {*own, "CONFIG_DIR"}
    findings: list[Finding] = []
    sources = (("environment", os.environ), (".env", read_dotenv(Path.cwd() / ".env")))
    for source, variables in sources:
        for name in sorted(variables):
            short = name.removeprefix(PREFIX)
            if name.startswith(PREFIX) and short not in known:
                near = nearest(short.lower(), [each.lower() for each in own])
                hint = f"Did you mean {PREFIX}{near.upper()}?" if near else "See the README's table."
                findings.append(Finding(source, "wrong", f"{name} is no setting", hint))
    return findings


def _workspace(settings: Settings) -> Finding:
    try:
        with build.workspace_of(settings):
            return Finding("workspace", "found", str(settings.workspace.resolve()))
    except MasterAgentError as error:
        return Finding("workspace", "wrong", error.message, error.hint)


def _journal(settings: Settings) -> Finding:
    from master_agent.database import open_database

    path = state_folder(settings) / "journal.db"
    try:
        open_database(path).close()
    except MasterAgentError as error:
        return Finding("journal", "wrong", error.message, error.hint)
    return Finding("journal", "found", str(path))


def _proxy(settings: Settings) -> list[Finding]:
    if settings.proxy is None:
        return []
    where = f"{Server(settings.proxy).shown} ({settings.origins['proxy']})"
    said = f"downloads and models go through {where}; which addresses may be reached is checked there, not here"
    return [Finding("proxy", "note", said)]


def _engine(settings: Settings) -> Finding:
    """The engine that runs models here, and those that were downloaded for it."""
    if not embedded.installed():
        return Finding("embedded engine", "note", "not installed, so no model can be run here", embedded.INSTALL)
    shelf = local.shelf(settings)
    if names := shelf.names():
        return Finding("embedded engine", "found", f"models in {shelf.folder}: {', '.join(names)}")
    return Finding("embedded engine", "note", "installed; no model was downloaded", "Get one: master-agent models pull")


async def _model(settings: Settings) -> list[Finding]:
    """Who is asked and why, and whether each model that is asked is offered."""
    own = _own_models(settings)
    chosen = await models.choose(settings, own=own.values())
    try:
        if settings.script is not None:
            wire = Finding("wire", "note", f"{chosen.why}; no model is asked")
            return [wire, Finding("model", "found", f"the script {settings.script}")]
        who = [Finding("provider", "note", chosen.provider)] if chosen.provider else []
        return [*who, Finding("wire", "note", chosen.why), *await _all_offered(settings, chosen, own)]
    finally:
        await chosen.wire.close()


def _own_models(settings: Settings) -> dict[str, str]:
    """The models that agents name themselves, by what is said of the agent."""
    with suppress(MasterAgentError):  # of which the team's own finding tells
        return {f"agent {agent.name}": agent.model for agent in session.team(settings).agents.values() if agent.model}
    return {}


async def _all_offered(settings: Settings, chosen: Models, own: dict[str, str]) -> list[Finding]:
    """What each server that is asked says of the models it is asked for: those of all agents, the planner's, their own.

    An agent's own model that cannot be had is the agent's finding; the others go on without it.
    """
    import master_agent.sdk  # noqa: F401 - so that the server's time is the server's alone

    findings: list[Finding] = []
    asked: dict[int, tuple[Wire, list[_Asked]]] = {}
    for role, model in {"agents": chosen.agents, "planner": chosen.planner, **own}.items():
        try:
            if role in own and local.is_local(model):
                findings.append(Finding(role, "found", f"{model} is {local.found(settings, str(model)).path}"))
                continue  # which is not loaded for this
            wire, name = await chosen.wire.at(model) if isinstance(chosen.wire, Routed) else (chosen.wire, model)
        except MasterAgentError as error:
            findings.append(_failed(role, error))
            continue
        asked.setdefault(id(wire), (wire, []))[1].append(_Asked(role, model, name))
    for wire, wanted in asked.values():
        try:
            findings += await _offered(wire, wanted, at_its_address=len(asked) > 1)
        except MasterAgentError as error:  # who is asked is worth knowing all the more
            findings += [_failed(one.role, error) for one in wanted if one is wanted[0] or one.role in own]
    return findings


@dataclass(frozen=True)
class _Asked:
    """Who asks for which model, and what its server calls it."""

    role: str
    model: str | None
    name: str | None


def _failed(role: str, error: MasterAgentError) -> Finding:
    status: Status = "missing" if error.type == "no_model" else "wrong"
    return Finding(_subject(role), status, error.message, error.hint)


def _subject(role: str) -> str:
    return "model" if role in ("agents", "planner") else role


async def _offered(wire: Wire, asked: list[_Asked], *, at_its_address: bool) -> list[Finding]:
    """Which of the models a server offers."""
    began = time.monotonic()
    there = await wire.models()
    took = time.monotonic() - began
    who = wire.server.shown if isinstance(wire, Chat) else "the server"
    names = f"; it offers {', '.join(sorted(there)[:12])}" + (" and more" if len(there) > 12 else "")
    found = [one for one in asked if not one.name or not there or any(_is(model, one.name) for model in there)]
    findings = [
        Finding(
            _subject(one.role), "wrong", f"{who} answers, but does not offer {one.model}{names}", _choosing(one.role)
        )
        for one in asked
        if one not in found
    ]
    at = (f", at {who}" if at_its_address else "") + f"; answered in {took * 1000:.0f} ms{names}"
    if any(_subject(one.role) == "model" for one in found):
        said = ", ".join(f"{one.role}: {one.model}" for one in found)
        return [*dict.fromkeys(findings), Finding("model", "found", said + at)]
    return [*dict.fromkeys(findings), *(Finding(one.role, "found", f"{one.model}{at}") for one in found)]


def _choosing(role: str) -> str:
    return "Choose one: --model NAME --planner-model NAME" if _subject(role) == "model" else "Name one in its file."


def _is(offered: str, wanted: str) -> bool:
    """Whether a model of a list is the one that is meant: lists may put a folder before it, its date or tag behind."""
    return (
        offered in (wanted, f"{wanted}:latest")
        or offered.endswith(f"/{wanted}")
        or re.fullmatch(rf"{re.escape(wanted)}-\d{{8}}", offered) is not None
    )


async def _local_servers(settings: Settings) -> list[Finding]:
    """Those that answer now, whoever is asked."""
    places = reach.places(settings)
    if not places:
        return [Finding("local servers", "note", "none is looked for: MASTER_AGENT_LOCAL_SERVER is none")]
    return [
        Finding(
            "local server",
            "found",
            f"{PROVIDERS[one.kind].title}{f' {one.version}' if one.version else ''} at {one.origin}, "
            f"{len(one.models)} model{'' if len(one.models) == 1 else 's'}",
        )
        for one in await reach.servers(settings)
    ] or [Finding("local servers", "note", f"none answers at {', '.join(places)}")]


async def _pictures(settings: Settings) -> list[Finding]:
    from master_agent.fetch import Fetcher

    if missing := painters.no_pictures(settings):
        return [Finding("pictures", "missing", missing.message, missing.hint)]
    fetcher = Fetcher(build.allowed_hosts(settings), proxy=settings.proxy)
    try:
        provider = painters.make_images(settings, fetcher)
        said = await provider.check()
    finally:
        await fetcher.close()
    why = "as set" if settings.image_provider else "chosen by its key"
    return [Finding("pictures", "found", f"{provider.name} ({why}): {said}")]


async def _code(settings: Settings) -> list[Finding]:
    """Which sandbox runs code, why the better ones do not, and what it does not stop."""
    if settings.no_exec:
        return [Finding("code", "note", f"none is run: no_exec is set ({settings.origins['no_exec']})")]
    programs.python(settings)
    better, found = await programs.look(settings)
    failed = "; ".join(f"{mechanism.name}: {mechanism.reason}" for mechanism in better)
    if found is None:
        return [Finding("code", "missing", f"no sandbox works here, so no code is run: {failed}", programs.install())]
    stops = f"it does not stop: {'; '.join(found.gaps)}"
    if not better:
        return [Finding("code", "found", f"{found.name} runs it; {stops}")]
    return [Finding("code", "note", f"{found.name}, a weaker sandbox, runs it ({failed}); {stops}", programs.install())]
