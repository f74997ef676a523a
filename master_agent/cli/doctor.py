"""`doctor`: what is there, what is missing and what to do about it. Each "found" was contacted in this very call."""

import asyncio
import os
import platform
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import typer

from master_agent import __version__
from master_agent.cli import build, exit_codes, models, painters, session, streams
from master_agent.cli.options import Options, with_options
from master_agent.errors import MasterAgentError
from master_agent.openai_server import Server
from master_agent.settings import PREFIX, Settings, config_folder, read_dotenv, state_folder, table
from master_agent.values import nearest

Status = Literal["found", "missing", "wrong", "note"]
SECONDS = 10.0


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
    "model", "openai_base_url", "wire", "script", "image_provider", "workspace", "state_dir", output=("json",)
)
def doctor(options: Options) -> int:
    settings = session.settings_of(options)
    findings = asyncio.run(_look(settings))
    if options.json:
        body = {"kind": "doctor", "version": 1, "program": __version__, "findings": [asdict(f) for f in findings]}
        streams.print_json(body)
    else:
        for finding in findings:
            streams.write(f"{_MARKS[finding.status]:<8} {finding.name}: {finding.message}", hang=9)
            if finding.hint and finding.status != "found":
                streams.write(f"         {finding.hint}", hang=0)
    ready = any(finding.name == "model" and finding.status == "found" for finding in findings)
    return exit_codes.DONE if ready else exit_codes.NO_MODEL


_MARKS = {"found": "ok", "missing": "missing", "wrong": "WRONG", "note": "note"}


async def _look(settings: Settings) -> list[Finding]:
    here = f"master-agent {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    findings = [Finding("program", "found", here), _team(), _config(), *_strays()]
    findings += [Finding("settings", "note", notice) for notice in settings.notices]
    findings += [_workspace(settings), _journal(settings)]
    findings += [_model_choice(settings)]
    findings += await asyncio.gather(_safely("model", _model, settings), _safely("pictures", _pictures, settings))
    return findings


async def _safely(name: str, look: Callable[[Settings], Awaitable[Finding]], settings: Settings) -> Finding:
    try:
        async with asyncio.timeout(SECONDS):
            return await look(settings)
    except MasterAgentError as error:
        status: Status = "missing" if error.type == "no_model" else "wrong"
        return Finding(name, status, error.message, error.hint)
    except TimeoutError:
        return Finding(
            name, "wrong", f"no answer within {SECONDS:g} seconds", "Is the server up, and the address right?"
        )


def _team() -> Finding:
    try:
        team = session.team()
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
    from master_agent.workspace import Workspace

    try:
        with Workspace(settings.workspace):
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


def _model_choice(settings: Settings) -> Finding:
    name, why = models.wire_name(settings)
    if name == "scripted":
        return Finding("wire", "note", f"{why}; no model is asked")
    own = settings.openai_base_url
    address = Server(own).shown if own else "OpenAI's own address"
    key = f"from {settings.origins['openai_api_key']}" if settings.openai_api_key else "none"
    return Finding("wire", "note", f"{why}; at {address} ({settings.origins['openai_base_url']}), key: {key}")


async def _model(settings: Settings) -> Finding:
    chosen = await models.choose(settings)
    try:
        if settings.script is not None:
            return Finding("model", "found", f"the script {settings.script}")
        began = time.monotonic()
        offered = await chosen.wire.models()
        took = f"{(time.monotonic() - began) * 1000:.0f} ms"
    finally:
        await chosen.wire.close()
    for wanted in (chosen.agents, chosen.planner):
        if wanted and offered and wanted not in offered:
            message = f"the server answers, but does not offer {wanted}; it offers {', '.join(offered[:12])}"
            return Finding("model", "wrong", message, "Choose one: --model NAME --planner-model NAME")
    names = f"; it offers {', '.join(sorted(offered)[:12])}" + (" and more" if len(offered) > 12 else "")
    said = f"agents: {chosen.agents}, planner: {chosen.planner}; answered in {took}{names}"
    return Finding("model", "found", said)


async def _pictures(settings: Settings) -> Finding:
    from master_agent.fetch import Fetcher

    if missing := painters.no_pictures(settings):
        return Finding("pictures", "missing", missing.message, missing.hint)
    fetcher = Fetcher(build.allowed_hosts(settings))
    try:
        provider = painters.make_images(settings, fetcher)
        said = await provider.check()
    finally:
        await fetcher.close()
    why = "as set" if settings.image_provider else "chosen by its key"
    return Finding("pictures", "found", f"{provider.name} ({why}): {said}")
