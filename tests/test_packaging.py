"""What is shipped: the wheel, installed beside another package called `agents`, runs from another folder."""

import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import GUARD, ROOT

pytestmark = pytest.mark.slow
OFFLINE_AFTER = {"PYTHONPATH": str(GUARD)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    assert len(list(folder.glob("*.tar.gz"))) == 1
    return built


def test_the_wheel_has_agents_prompts_and_demos_and_nothing_else_at_the_top(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"master_agent"}
    for folder, ending in (("agents", "md"), ("prompts", "md")):
        shipped = {name.rsplit("/", 1)[1] for name in names if f"_builtin/{folder}/" in name}
        assert shipped == {path.name for path in (ROOT / folder).glob(f"*.{ending}")}
    assert {path.name for path in (ROOT / "master_agent" / "demos").iterdir()} <= {
        name.rsplit("/", 1)[1] for name in names
    }
    assert "master_agent/py.typed" in names


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The bin folder of an environment with the wheel and openai-agents, whose package is called `agents`."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, str(wheel), "openai-agents"], check=True)
    yield folder / "bin"


def test_beside_openai_agents_the_wheel_runs_the_demo_from_another_folder(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "code.md").write_text("not one of ours")
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **OFFLINE_AFTER}

    found = subprocess.run([installed / "python", "-c", "import agents; print(agents.Agent)"], capture_output=True)
    ran = subprocess.run(
        [installed / "master-agent", "demo"], cwd=tmp_path, env=environ, capture_output=True, text=True
    )

    assert found.returncode == 0, found.stderr
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "master-agent-demo" / "index.html").exists()
    listed = subprocess.run([installed / "master-agent", "tools"], env=environ, capture_output=True, text=True)
    assert "save_result" in listed.stdout
