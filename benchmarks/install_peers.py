"""Installs the frameworks beside which we are measured: `python -m benchmarks.install_peers [NAME …]`, all by default.

Each gets a virtual environment of its own in ~/.cache/master-agent-peers, or in the folder that PEERS names; the
benchmark looks there and passes over what is not installed. Nothing of it goes into our own environment.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

PEERS = {
    "langgraph": ["langgraph", "langchain", "langchain-openai"],
    "pydantic-ai": ["pydantic-ai-slim[openai]"],
    "openai-agents": ["openai-agents"],
    "agno": ["agno", "openai"],
    "agent-framework": ["agent-framework-core", "agent-framework-openai"],
    "crewai": ["crewai"],
}


def folder() -> Path:
    """Where the environments are."""
    return Path(os.environ.get("PEERS") or Path.home() / ".cache" / "master-agent-peers")


def python_of(peer: str) -> Path | None:
    """The Python of a peer that is installed."""
    python = folder() / peer / "bin" / "python"
    return python if python.exists() else None


def main() -> None:
    """Installs those that are named; one that cannot be installed does not keep the others from it."""
    for peer in sys.argv[1:] or PEERS:
        venv.create(folder() / peer, with_pip=True, clear=True)
        command = [str(folder() / peer / "bin" / "python"), "-m", "pip", "install", "--quiet", *PEERS[peer]]
        ran = subprocess.run([*command, "--disable-pip-version-check"], check=False)
        print(f"{peer}: {'installed' if ran.returncode == 0 else 'could not be installed'}", flush=True)


if __name__ == "__main__":
    main()
