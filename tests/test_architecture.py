"""The rules of the house that a machine can hold: imports go down, modules only define names, functions stay short."""

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from master_agent.cli.commands import COMMANDS, HIDDEN
from tests.conftest import Cli

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "master_agent"
MODULES = sorted(PACKAGE.rglob("*.py"))

# From the top down; a module may import from lines below its own, and from its own line only what SIDEWAYS allows.
LAYERS = [
    ["__main__"],
    ["cli"],
    ["settings"],
    ["reporters"],
    ["master"],
    ["planner", "dispatcher", "runner", "aggregator", "history"],
    ["exchanges", "layers", "remember", "reuse", "budget"],
    ["converse", "answers", "hosted", "identity"],
    ["tools"],
    ["providers"],
    ["threads", "images", "sandbox", "codefiles", "hub"],
    ["fetch", "run_files", "openai_server", "embedded", "local_servers"],
    ["workspace", "guard"],
    ["beneath", "media"],
    ["lifetime"],
    ["cassette", "retry", "limits", "prices", "catalogue", "prompts", "context", "journal", "gguf"],
    ["rows"],
    ["database", "done_steps", "past", "changes", "state"],
    ["events"],
    ["approval", "checker"],
    ["plan"],
    ["references"],
    ["results"],
    ["attachments"],
    ["sdk"],
    ["quick", "re_exports", "held_keys"],
    ["errors", "secrets", "values", "hosts", "brackets", "holders"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ONLY_CLI = "settings"  # only the command line may read settings
LONGEST_FUNCTION, LONGEST_FILE = 70, 450


def part(module: str) -> str:
    """The layer's name of a dotted module: master_agent.threads.chat → threads."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else "__init__"


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("master_agent"):
            if node.module == "master_agent":
                yield from (f"master_agent.{alias.name}" for alias in node.names if not alias.name.startswith("__"))
            else:
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("master_agent"))


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_go_down_only(path: Path) -> None:
    here = part(dotted(path))
    if here == "__init__":
        return
    assert here in LEVEL, f"{here} has no place in the layers: give it one, openly, in this test"
    for imported in imports(path):
        there = part(imported)
        if there == here:
            continue
        assert there in LEVEL, f"{dotted(path)} imports {imported}, which has no place in the layers"
        assert LEVEL[there] > LEVEL[here], f"{dotted(path)} imports {imported}, which is not below it"
        assert there != ONLY_CLI or here == "cli", f"only the command line may import settings, not {dotted(path)}"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_functions_and_files_stay_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= LONGEST_FILE, f"{dotted(path)} is too long to be one thing"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{dotted(path)}.{node.name} has {length} lines"


def test_the_story_fits_on_two_screens() -> None:
    code = [
        line
        for line in (PACKAGE / "master.py").read_text().splitlines()
        if line.strip() and not line.lstrip().startswith(("#", '"""', "import ", "from "))
    ]
    assert len(code) <= 70


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_broad_except_says_why(path: Path) -> None:
    lines = path.read_text().splitlines()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler) and (
            node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
        ):
            around = "\n".join(lines[node.lineno - 2 : node.lineno + 2])
            goes_on = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
            assert "#" in around or goes_on, f"{dotted(path)}:{node.lineno} has a broad except and no reason"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_module_says_in_its_first_line_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{dotted(path)} has no docstring"


def test_agents_and_prompts_are_data() -> None:
    found = [path for folder in ("agents", "prompts") for path in (ROOT / folder).rglob("*") if path.suffix != ".md"]
    assert found == []


TYPER = {"typer", "annotated_doc", "shellingham"}
PYDANTIC = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
HISTORY = TYPER | PYDANTIC | {"platformdirs"}
ENGINE = HISTORY | {"yaml"}
PACKAGES = [  # a path through the program, and all that it may import of other people's packages
    (["--version"], set()),
    (["--help"], TYPER),
    (["run", "--help"], TYPER | PYDANTIC),
    (["no plan", "and no task"], TYPER | PYDANTIC),
    (["runs"], HISTORY),
    (["tools"], ENGINE),
    (["check", "plan.json"], ENGINE),
    (["run", "plan.json", "--script", "script.jsonl"], ENGINE),
    (["A task", "--yes", "--script", "script.jsonl", "--json"], ENGINE),
    (["A task", "--yes", "--model", "gguf:none.gguf"], ENGINE),  # neither the engine nor anything for it
    (["models"], ENGINE),
    (["models", "remove", "none"], ENGINE),
]
PROGRAM = """
import sys
before = set(sys.modules)
sys.argv = ["master-agent", *sys.argv[1:]]
import contextlib, io
from master_agent.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
loaded = {name: module.__spec__ for name, module in sys.modules.items() if name not in before}
print(*{name.partition(".")[0] for name, spec in loaded.items() if spec and "site-packages" in str(spec.origin)})
"""


@pytest.mark.parametrize(("arguments", "allowed"), PACKAGES, ids=[" ".join(words) for words, _ in PACKAGES])
def test_only_these_packages_are_imported(cli: Cli, arguments: list[str], allowed: set[str]) -> None:
    plan = {"plan": [{"agent": "code", "prompt": "Say it."}]}
    cli.file("plan.json", json.dumps(plan))
    replies = [{"agent": "planner", "reply": {"text": json.dumps(plan)}}, {"agent": "code", "reply": {"text": "Done."}}]
    cli.file("script.jsonl", "".join(json.dumps(reply) + "\n" for reply in replies))

    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=cli.folder,
        env=cli.environ,
        capture_output=True,
        text=True,
        check=True,
    )

    assert set(ran.stdout.split()) - {"master_agent"} <= allowed


def test_every_command_stands_in_the_table_and_in_its_module() -> None:
    registered: dict[str | None, str] = {}
    for path in sorted((PACKAGE / "cli").glob("*.py")):
        module = importlib.import_module(dotted(path))
        if hasattr(module, "add_to"):
            module.add_to(app := typer.Typer())
            registered |= {command.name: path.stem for command in app.registered_commands}
            registered |= {group.name: path.stem for group in app.registered_groups}

    assert registered == {name: listed.module for name, listed in (COMMANDS | HIDDEN).items()}


def test_the_sdk_is_imported_in_one_place() -> None:
    importing = set()
    for path in MODULES:
        tree = ast.parse(path.read_text())
        for_types = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in set(ast.walk(tree)) - for_types:
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            named += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            importing |= {dotted(path) for name in named if name.partition(".")[0] == "openai"}

    assert importing == {"master_agent.sdk"}


def test_the_engine_is_imported_without_sdk_and_http_client() -> None:
    program = "import sys, master_agent.master, master_agent.runner; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in ran.stdout.split()}
    assert loaded & {"openai", "httpx", "httpx2", "rich", "typer", "PIL", "sqlalchemy"} == set()
