"""Whole runs in which a model runs hostile code: what it leaves in outputs, journal, workspace and environment."""

import json
from pathlib import Path

import pytest

from tests.attacks.canary import Canary
from tests.attacks.world import MECHANISMS, hidden
from tests.conftest import Cli, Ran, calls, says

KEY = Canary("canary-Bt6MqX1vLs9RwH4z")
HOSTILE = """
import glob, os, shutil
said = [str(dict(os.environ))]
for path in glob.glob('/proc/[0-9]*/environ') + glob.glob('{folder}/.env') + ['.env', '../.env']:
    try: said.append(open(path, errors='replace').read())
    except OSError: pass
print(*(text[::-1] for text in said))  # backwards, which nobody looks for
open('taken.txt', 'w').write(''.join(said)[::-1])
for name in ('.git/hooks/post-checkout', '.env', '.master-agent/agents/code.md', '.ssh/authorized_keys', 'fine.txt'):
    os.makedirs(os.path.dirname(name) or '.', exist_ok=True)
    open(name, 'w').write('planted')
os.symlink('{folder}/.env', 'link')
try: open('{folder}/outside-of-the-scratch', 'w').write('x')
except OSError: pass
"""


def run(cli: Cli, *flags: str, code: str = HOSTILE) -> Ran:
    cli.file(".env", f"OPENAI_API_KEY={KEY.value}\n")
    program = code.replace("{folder}", str(cli.folder))
    script = cli.script(
        calls(("run_code", {"language": "python", "code": program}), step="code", turn=1),
        calls(("run_code", {"language": "shell", "code": "cat .env", "files": [".env"]}), step="code", turn=2),
        says("Done.", step="code", turn=3),
    )
    log = str(cli.home / "run.log")
    return cli(
        "agents", "run", "code", "Do it", script, "--json", "--log-file", log, *flags, env={"SOME_KEY": KEY.value}
    )


def left(cli: Cli) -> set[str]:
    return {str(path.relative_to(cli.folder)) for path in cli.folder.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_hostile_code_brings_nothing_out_and_leaves_only_what_is_a_file_of_the_user(cli: Cli, mechanism: str) -> None:
    if hidden(mechanism):
        pytest.skip(f"{mechanism}: {hidden(mechanism)}")
    planted = cli.folder / ".env"
    naive = run(cli, "--unsafe-exec")
    shown = {"out": naive.out, "err": naive.err, "show": cli("show", "--events").out}
    assert "out" in KEY.found(shown) and KEY.found({}, cli.home) and (cli.folder / "outside-of-the-scratch").exists()
    assert naive.json["unsafe_exec"] is True
    for path in (cli.folder / "outside-of-the-scratch", cli.folder / "taken.txt", cli.folder / "fine.txt"):
        path.unlink()
    assert cli("purge", naive.json["run_id"], "--yes").code == 0
    (cli.home / "run.log").unlink()

    if mechanism != "bubblewrap":
        cli.variables["PATH"] = "/nowhere"
    ran = run(cli)
    done = ran.json["results"]["code"]
    if done["data"].get("mechanism") != mechanism:
        pytest.skip(f"{mechanism}: does not work here ({done['error'] or done['data']['mechanism']})")

    outputs = {"out": ran.out, "err": ran.err, "show": cli("show", "--events").out}
    assert KEY.found(outputs, cli.folder, cli.home, but=(planted,)) == []
    assert left(cli) == {".env", "taken.txt", "fine.txt"}
    assert planted.read_text() == f"OPENAI_API_KEY={KEY.value}\n"
    refused = ran.json["results"]["code"]["data"]["not_saved"]
    names = {".git/hooks/post-checkout", ".env", ".master-agent/agents/code.md", ".ssh/authorized_keys", "link"}
    assert names <= set(refused), json.dumps(refused)


def test_a_file_of_secrets_is_given_to_no_program(cli: Cli) -> None:
    ran = run(cli, code="print(1)")
    events = [json.loads(line) for line in cli("show", "--events").out.splitlines()]
    told = [event for event in events if event["type"] == "tool_returned"]
    assert ran.code == 0, ran.out
    assert told[1]["error"]["type"] == "file_refused" and ".env" in told[1]["error"]["message"]


def test_agents_without_the_tool_and_runs_without_exec_run_nothing(cli: Cli, tmp_path: Path) -> None:
    ran = run(cli, "--no-exec", code=f"open('{tmp_path}/ran', 'w')")
    assert not (tmp_path / "ran").exists()
    assert ran.json["results"]["code"]["data"].get("stdout") is None
