"""The classes of the SDK's requests and answers: not imported before they are looked up, and the same ones then."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from master_agent.re_exports import when_looked_up
from tests.conftest import Cli
from tests.servers import chat
from tests.servers.chat import ChatServer

SHOWN = """
import importlib, json, pkgutil, sys
importlib.import_module(sys.argv[1])
import openai.types, openai.lib
asked = json.load(sys.stdin)
packages = [openai.lib, openai.types] + [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(openai.types.__path__, "openai.types.") if found.ispkg
]
def starred(package):
    names = {}
    exec(f"from {package.__name__} import *", names)
    return {name: value for name, value in names.items() if name not in ("__builtins__", "annotations")}
def named(value):
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', None) or repr(value)}"
asked = asked or {package.__name__: sorted(starred(package)) for package in packages}
print(json.dumps({
    package.__name__: {name: named(getattr(package, name)) for name in asked[package.__name__]} for package in packages
} | {"*": {  # modules aside: who imports one sets it for all
    package.__name__: sorted(n for n, value in starred(package).items() if not isinstance(value, type(sys)))
    for package in packages
}}))
"""


def names_after(module: str, asked: dict[str, Any]) -> dict[str, Any]:
    given = json.dumps({package: list(names) for package, names in asked.items() if package != "*"})
    command = [sys.executable, "-c", SHOWN, module]
    ran = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    names: dict[str, Any] = json.loads(ran.stdout)
    return names


def test_every_name_of_the_sdk_is_the_same_as_without_us() -> None:
    theirs = names_after("openai", {})
    ours = names_after("master_agent.sdk", theirs)

    assert sum(map(len, theirs.values())) > 1000
    for package in theirs:
        assert ours[package] == theirs[package], package


def test_a_run_imports_no_classes_of_answers(cli: Cli) -> None:
    plan = cli.file("plan.json", json.dumps({"plan": [{"agent": "code", "prompt": "Say it."}]}))
    program = """
import contextlib, sys
sys.argv = ["master-agent", *sys.argv[1:]]
from master_agent.cli import main
with contextlib.suppress(SystemExit):
    main()
print(len([name for name in sys.modules if name.startswith("openai.types.")]), file=sys.stderr)
"""
    with ChatServer([chat.reply("Done.")]) as server:
        words = ["run", str(plan), "--wire", "chat", "--openai-base-url", server.base_url, "--model", "m", "--quiet"]
        ran = subprocess.run(
            [sys.executable, "-c", program, *words],
            cwd=cli.folder,
            env=cli.environ,
            capture_output=True,
            text=True,
            check=True,
        )

    assert "Done." in ran.stdout
    assert int(ran.stderr.split()[-1]) < 20


@pytest.mark.parametrize(
    ("init", "told"),
    [
        pytest.param("from .one import One as One", [], id="a name"),
        pytest.param("from .one import One as First, Two", [], id="several, one renamed"),
        pytest.param("from .one import *", ["one"], id="all there is"),
        pytest.param("from .one import one", ["one"], id="a name like its module's"),
        pytest.param("from .one import One\nTwo = One", ["one"], id="more than names"),
        pytest.param("from . import one", ["one"], id="a module"),
    ],
)
def test_a_package_that_does_more_is_imported_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], init: str, told: list[str]
) -> None:
    name = f"passing_on_{abs(hash(init))}"
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").write_text(f"{init}\n")
    (package / "one.py").write_text("print('one')\nclass One: ...\nTwo = one = One\n")
    monkeypatch.syspath_prepend(tmp_path)

    with when_looked_up(name):
        made = __import__(name)
    at_once = capsys.readouterr().out.split()
    looked_up = {getattr(made, known).__name__ for known in dir(made) if not known.startswith("_")}

    assert at_once == told
    assert looked_up & {"One", f"{name}.one"}
    with pytest.raises(AttributeError, match="none"):
        _ = made.none
