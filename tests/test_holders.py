"""Who holds a run: a process is said to be gone only where that is certain."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from master_agent.holders import in_words, is_gone, new_holder
from tests.conftest import ROOT

TELLS = [sys.executable, "-c", "from master_agent.holders import new_holder; print(new_holder(), flush=True); input()"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="told by Linux's /proc")


def other(holder: str, **fields: str) -> str:
    """The name with some of its fields replaced."""
    names = ("host", "pid", "random", "place", "began")
    return "/".join(fields.get(name, value) for name, value in zip(names, holder.split("/"), strict=True))


def test_a_process_that_is_there_is_not_gone_stopped_or_not_and_one_that_has_ended_is() -> None:
    assert not is_gone(new_holder())
    process = subprocess.Popen(TELLS, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    holder = process.stdout.readline().strip()
    try:
        process.send_signal(signal.SIGSTOP)
        assert not is_gone(holder)
    finally:
        process.kill()
    if sys.platform == "linux":
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended; its parent has not asked for it yet
        assert is_gone(holder)
    process.communicate()

    assert is_gone(holder)
    assert in_words(holder) == f"process {process.pid} on {os.uname().nodename}"
    for elsewhere in ({"host": "other"}, {"place": ""}, {"place": "other"}):
        assert not is_gone(other(holder, **elsewhere)), "nobody here can know of it"
    assert not is_gone("/".join(holder.split("/")[:3])), "as an earlier version wrote it"


@linux
def test_a_program_whose_name_is_cut_within_a_letter_has_a_name_all_the_same() -> None:
    program = """
from pathlib import Path
Path("/proc/self/comm").write_bytes("mein-master-für".encode()[:14] + b"\\xc3")
from master_agent.holders import is_gone, new_holder
print(new_holder().count("/"), is_gone(new_holder()))
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)

    assert ran.stdout.split() == ["4", "False"], ran.stderr


@linux
def test_a_number_that_another_process_has_got_since_is_no_sign_of_life() -> None:
    mine = new_holder()

    assert is_gone(other(mine, began="1"))
    assert not is_gone(other(mine, began=""))


@linux
@pytest.mark.parametrize("proc", [["--mount-proc"], []])
def test_a_process_of_another_container_is_never_said_to_be_gone(proc: list[str]) -> None:
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", *proc]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True).returncode != 0:
        pytest.skip("no namespaces of an own can be made here")
    judges = (
        "import sys; from master_agent.holders import is_gone, new_holder; print(new_holder(), is_gone(sys.argv[1]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", "from master_agent.holders import new_holder; print(new_holder())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert is_gone(ended.stdout.strip())

    told = subprocess.run(
        [*unshare, sys.executable, "-c", judges, ended.stdout.strip()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    there, _, judged = told.stdout.strip().rpartition(" ")
    assert judged == "False", "from inside, what is outside cannot be seen"
    assert not is_gone(there), "and the other way round"
