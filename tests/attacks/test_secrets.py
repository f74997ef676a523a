"""Keys are known to the program and to nobody else: not to models, journal, logs, results or errors."""

import base64
import json
import os
from pathlib import Path

import pytest

from tests.attacks.canary import Canary
from tests.conftest import Cli, calls, says
from tests.servers.chat import ChatServer, call, reply
from tests.servers.loopback import Behaviour, Body

# The keys have no shape that anybody knows: only by their values can they be told from other words.
KEY, TOKEN, OTHER = (
    Canary("canary-Fq7ZpT2mWx4LrK9s"),
    Canary("canary-Hd5VbN8cYj3QgE6a"),
    Canary("canary-Uw1XoS4tRi7MzB2k"),
)
PLAIN = Canary("common-Jk8PvC5nGy2DfA9x")  # no key: shows that the search would find one


def notes(canary: Canary) -> str:
    """A file that tells it in every way that a tool's output can."""
    value = canary.value
    coded = base64.b64encode(f"the key is {value}!".encode()).decode()
    return "\n".join(
        [
            f"KEY={value}",
            f"{value[:9]}\n  {value[9:15]}\n{value[15:]}",
            json.dumps([value[:11], value[11:]]),
            repr(f"{value[:8]}\n{value[8:]}"),
            *(coded[at : at + 12] for at in range(0, len(coded), 12)),
            value.encode().hex(),
        ]
    )


def brain(body: Body) -> Behaviour:
    """A model that reads the file, looks for one that is named like it, and repeats all that it was told."""
    told = json.dumps(body["messages"])
    if '"role": "tool"' not in told:
        return reply(
            calls=[
                call("read_file", {"path": "notes.txt"}, "c1"),
                call("read_file", {"path": "notes.txt", "start_line": 3, "lines": 1}, "c2"),
                call("list_files", {}, "c5"),
                call("download_image", {"url": f"http://127.0.0.1:9/{PLAIN.value}"}, "c3"),
                call("write_file", {"path": "made.txt", "content": "x", "overwrite": True, "last": False}, "c4"),
            ]
        )
    return reply(told)


def run(cli: Cli, server: ChatServer, *flags: str) -> dict[str, str | bytes]:
    """What a run that works with the file has put out, everywhere."""
    outputs: dict[str, str | bytes] = {}
    for form in ("--json", "--verbose"):
        ran = cli(
            *("agents", "run", "file", "Read notes.txt", form, "--log-file", str(cli.home / "run.log"), *flags),
            env={"OPENAI_BASE_URL": server.base_url, "MASTER_AGENT_MODEL": "m", "SOME_API_KEY": OTHER.value},
        )
        assert ran.code == 0, ran.err
        outputs |= {f"stdout of {form}": ran.out, f"stderr of {form}": ran.err}
    shown = cli("show", "--events")
    return {**outputs, "show": shown.out, "requests": b"".join(request.raw for request in server.requests)}


def test_a_key_that_a_file_holds_reaches_no_model_no_journal_no_log_and_no_output(cli: Cli) -> None:
    cli.file(".env", f"REPLICATE_API_TOKEN={TOKEN.value}\n")
    cli.variables["OPENAI_API_KEY"] = KEY.value
    written = cli.file("notes.txt", "\n\n".join(notes(canary) for canary in (PLAIN, KEY, TOKEN, OTHER)))
    named = cli.file(f"{KEY.value}.txt", "x")

    with ChatServer(brain) as server:
        outputs = run(cli, server)
        authorized = {request.headers.get("authorization") for request in server.requests}

    planted = (written, named, cli.folder / ".env")
    kept = [*(cli.home / "state").glob("journal.db*"), cli.home / "run.log"]
    assert {path.stat().st_mode & 0o077 for path in kept} == {0}
    seen = PLAIN.found(outputs, cli.folder, cli.home, but=planted)
    assert authorized == {f"Bearer {KEY.value}"}
    assert {"stdout of --json", "show", "requests", str(cli.home / "run.log")} <= set(seen)
    assert any("journal.db" in place for place in seen)
    for canary in (KEY, TOKEN, OTHER):
        assert canary.found(outputs, cli.folder, cli.home, but=planted) == []


@pytest.mark.parametrize("where", ["the task", "the parameter key", "the file notes.txt"])
def test_a_key_that_is_given_with_a_run_is_refused_by_its_name(cli: Cli, where: str) -> None:
    cli.variables["REPLICATE_API_TOKEN"] = KEY.value
    cli.file("notes.txt", f"the key: {base64.b64encode(KEY.value.encode()).decode()}")
    task = f"Use {KEY.value}" if where == "the task" else "Use ${params.key}"
    given = {"the task": [], "the parameter key": [f"--param=key={KEY.value}"], "the file notes.txt": ["-fnotes.txt"]}

    with ChatServer([reply("x")]) as server:
        ran = cli(task, *given[where], "--yes", "--json", "--openai-base-url", server.base_url, "--model=m")

    assert (ran.code, ran.json["error"]["type"], server.count) == (2, "usage", 0)
    assert f"{where} holds the value of REPLICATE_API_TOKEN" in ran.err
    assert KEY.found({"out": ran.out, "err": ran.err}, cli.home) == []


def test_a_plan_that_holds_a_key_is_refused(cli: Cli) -> None:
    plan = cli.plan({"agent": "code", "prompt": f"Use {KEY.value[:9]}\n{KEY.value[9:]}"})

    ran = cli("run", plan, cli.script(), "--json", env={"OPENAI_API_KEY": KEY.value})

    assert (ran.code, "the plan holds the value of OPENAI_API_KEY" in ran.err) == (2, True)
    assert KEY.found({"out": ran.out, "err": ran.err}, cli.home / "state") == []


def test_a_key_of_another_program_in_the_folders_env_is_cut_too_and_one_that_gives_way_to_yours(cli: Cli) -> None:
    database = f"postgres://me:{OTHER.value}@127.0.0.1/db"
    env = cli.file(".env", f"PAYMENT_TOKEN={TOKEN.value}\nDATABASE_URL={database}\nOPENAI_API_KEY={KEY.value}\n")
    cli.variables["OPENAI_API_KEY"] = "the key of the user's own"
    written = cli.file("notes.txt", "\n".join(canary.value for canary in (TOKEN, OTHER, KEY, PLAIN)))
    script = cli.script(calls(("read_file", {"path": "notes.txt"})), says("Done."))

    ran = cli("agents", "run", "file", "Read notes.txt", "--json", script)

    assert ran.code == 0, ran.err
    outputs = {"show": cli("show", "--events").out}
    assert PLAIN.found(outputs)
    for canary in (KEY, TOKEN, OTHER):
        assert canary.found(outputs, cli.folder, cli.home, but=(written, env)) == []


def test_a_traceback_holds_no_key_and_steers_no_terminal(cli: Cli, tmp_path: Path) -> None:
    broken = tmp_path / "site"
    broken.mkdir()
    (broken / "platformdirs.py").write_text("import os\nraise RuntimeError('\\x1b[2J' + os.environ['OPENAI_API_KEY'])")
    paths = f"{broken}{os.pathsep}{cli.environ['PYTHONPATH']}"
    environ = {"PYTHONPATH": paths, "MASTER_AGENT_STATE_DIR": "", "OPENAI_API_KEY": KEY.value}

    for flags in ([], ["--json"]):
        ran = cli("agents", "run", "code", "x", "--debug", *flags, env=environ)

        assert ran.code == 70
        assert "RuntimeError" in ran.err and "\\x1b[2J(secret)" in ran.err and "\x1b" not in ran.err
        assert KEY.found({"out": ran.out, "err": ran.err}, cli.home) == []
