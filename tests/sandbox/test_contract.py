"""What every sandbox that works on this machine keeps: a program goes in, its outcome comes out, limits hold."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from master_agent.errors import SandboxError
from master_agent.sandbox import MIB, File, Outcome, Program, ProgramLimits, Sandbox, launch
from master_agent.sandbox.mechanisms import find, look
from master_agent.sandbox.places import open_to_all
from tests.conftest import ROOT

LIMITS = ProgramLimits(
    seconds=30, cpu_seconds=20, memory=256 * MIB, processes=16, file_bytes=8 * MIB, disk_bytes=16 * MIB
)
SHORT = replace(LIMITS, seconds=0.5)


def possible(name: str) -> bool:
    """Whether the mechanism works on this machine without us."""
    if name == "bubblewrap":
        plain = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
        return shutil.which("bwrap") is not None and subprocess.run(plain, capture_output=True).returncode == 0
    try:
        return "landlock" in Path("/sys/kernel/security/lsm").read_text()
    except OSError:
        return False  # the kernel does not say; then its absence is believed


def sandbox_called(name: str) -> Sandbox:
    """A mechanism; the test is skipped, with the reason, where it cannot work."""
    try:
        return asyncio.run(find(name))
    except SandboxError as error:
        if possible(name):
            raise
        pytest.skip(error.message)


@pytest.fixture(params=["bubblewrap", "landlock", "unsafe"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    yield sandbox_called(request.param)


@pytest.fixture(params=["bubblewrap", "landlock"])
def safe(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    yield sandbox_called(request.param)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary folders, into which the user that stands in for root can go too."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)
        monkeypatch.setattr("tempfile.tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def alive(mark: bytes) -> list[bytes]:
    """The command lines of processes that hold a mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:
            continue
    return [line for line in found if mark in line]


def ran(sandbox: Sandbox, *command: str, given: bytes = b"", limits: ProgramLimits = LIMITS, **files: bytes) -> Outcome:
    around = {name: File(content) for name, content in files.items()}
    return asyncio.run(sandbox.run(Program(command, given, around), limits))


def python(sandbox: Sandbox, code: str, limits: ProgramLimits = LIMITS) -> Outcome:
    return ran(sandbox, "python3", "-c", code, limits=limits)


def test_a_program_gets_its_files_and_input_and_leaves_new_and_changed_files(sandbox: Sandbox) -> None:
    script = """cat kept; cat; echo more >> changed; rm gone; : > "$HOME/x"; : > "$TMPDIR/x"
    mkdir -p a/b; echo deep > a/b/c; chmod +x a/b/c; echo no >&2; exit 3"""
    files = {"kept": b"kept ", "changed": b"", "gone": b""}
    script = script if sandbox.name != "unsafe" else script.replace(': > "$HOME/x"; ', "")
    outcome = ran(sandbox, "sh", "-c", script, given=b"typed", limits=LIMITS, **files)
    assert (outcome.exit_code, outcome.signal, outcome.ended_by) == (3, None, None)
    assert (outcome.stdout, outcome.stderr) == (b"kept typed", b"no\n")
    assert outcome.files == {"changed": File(b"more\n"), "a/b/c": File(b"deep\n", executable=True)}
    assert (outcome.deleted, outcome.left_out) == (("gone",), {})


def test_a_lot_of_input_and_output_passes_in_both_directions_at_once(sandbox: Sandbox) -> None:
    given = os.urandom(3 * MIB)
    outcome = ran(sandbox, "cat", given=given, limits=replace(LIMITS, output_bytes=4 * MIB), big=given)
    assert (outcome.exit_code, outcome.stdout == given, dict(outcome.files)) == (0, True, {})


def test_a_program_that_reads_nothing_of_its_input_ends_all_the_same(sandbox: Sandbox) -> None:
    assert ran(sandbox, "true", given=bytes(MIB)).exit_code == 0


def test_a_command_that_is_not_there_is_named(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="'no-such-program' could not be started in the sandbox: No such file"):
        ran(sandbox, "no-such-program")


def test_given_files_that_cannot_be_given_are_refused_before_anything_starts(sandbox: Sandbox) -> None:
    for path in ("../x", "/x", "a//b", "a/./b", "", "\ud800"):
        with pytest.raises(SandboxError, match="cannot be a file of the scratch folder"):
            asyncio.run(sandbox.run(Program(("true",), files={path: File(b"")}), LIMITS))
    with pytest.raises(SandboxError, match="16,777,217 bytes; 16,777,216 are the most"):
        asyncio.run(sandbox.run(Program(("true",), files={"x": File(bytes(16 * MIB + 1))}), LIMITS))


def test_a_virtual_environment_that_was_named_can_be_read_with_its_interpreter(safe: Sandbox) -> None:
    with tempfile.TemporaryDirectory() as folder:
        own = Path(os.path.realpath(sys.executable))
        interpreter = own if os.geteuid() or open_to_all(own) else Path("/usr/bin/python3")
        asked = [str(interpreter), "-c", "import sys; print(*sys.version_info[:2], sep='.')"]
        version = subprocess.run(asked, stdout=subprocess.PIPE, text=True).stdout.strip()
        packages = Path(folder, "lib", f"python{version}", "site-packages")
        packages.mkdir(parents=True)
        (packages / "of_mine.py").write_text("word = 'read'")
        Path(folder, "bin").mkdir()
        Path(folder, "bin", "python").symlink_to(interpreter)
        Path(folder, "pyvenv.cfg").write_text(f"home = {interpreter.parent}\n")
        Path(folder).chmod(0o755)
        command = (f"{folder}/bin/python", "-c", "import of_mine, json; print(of_mine.word)")
        outcome = asyncio.run(safe.run(Program(command, readable=(Path(folder),)), LIMITS))
        assert (outcome.stdout, outcome.stderr) == (b"read\n", b"")
    for place in (Path("/"), Path.home(), Path.home().parent):
        with pytest.raises(SandboxError, match="would open the whole machine or the whole home folder"):
            asyncio.run(safe.run(Program(("true",), readable=(place,)), LIMITS))


def environments() -> bytes:
    """What stands in the environment of each process that was started from here, and of those that they started."""
    seen = b""
    for pid in launch._family(os.getpid())[1:]:
        with contextlib.suppress(OSError):
            seen += Path(f"/proc/{pid}/environ").read_bytes()
    return seen


def test_nobody_who_is_started_for_a_program_has_a_key_in_the_environment(
    safe: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary-Tz7RkW3bXq5LmH9p")

    async def looked() -> bytes:
        command, seen = ("python3", "-c", "import time; time.sleep(0.3)"), b""
        running = asyncio.create_task(safe.run(Program(command), LIMITS))
        while not running.done():
            await asyncio.sleep(0.01)
            seen += await asyncio.to_thread(environments)
        return seen

    seen = asyncio.run(looked())
    assert b"GIT_CONFIG_NOSYSTEM=1" in seen and b"canary" not in seen


FORKS = "import os\nwhile True:\n try: os.fork()\n except OSError: pass"
TWELVE = (
    "import os, time\nfor _ in range(12):\n"
    " if not os.fork(): a = bytearray(b'x' * 40_000_000); time.sleep(20)\ntime.sleep(20)"
)
SHARED = (
    "import os, time\na = bytearray(b'x' * 90_000_000)\nfor _ in range(5):\n"
    " if not os.fork(): time.sleep(0.3); os._exit(0)\ntime.sleep(0.4)"
)
ENDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "an endless loop": ("while True: pass", {"ended_by": "cpu_seconds"}),
    "many processes": (FORKS, {"ended_by": "processes", "signal": 9, "exit_code": None}),
    "many threads": (
        "import threading, time\nfor _ in range(40): threading.Thread(target=time.sleep, args=(9,)).start()",
        {"ended_by": "processes"},
    ),
    "memory in one": ("a = []\nwhile True: a.append(bytearray(b'x' * 9_000_000))", {"ended_by": "memory"}),
    "memory at once": ("a = bytearray(4 << 30)", {"ended_by": "memory", "exit_code": 1}),
    "memory in twelve": (TWELVE, {"ended_by": "memory"}),
    "one huge file": ("f = open('x', 'wb')\nwhile True: f.write(bytes(1 << 20))", {"ended_by": "file_bytes"}),
    "many files": ("for i in range(99): open(f'x{i}', 'wb').write(bytes(1 << 20))", {"ended_by": "disk_bytes"}),
    "a flood": ("while True: print('x' * 1000)", {"ended_by": "output_bytes"}),
    "a flood of errors": ("import os\nwhile True: os.write(2, b'x' * 1000)", {"ended_by": "output_bytes"}),
    "its own signal": ("import os; os.kill(os.getpid(), 11)", {"ended_by": None, "signal": 11, "exit_code": None}),
    "what it shares counts once": (
        SHARED,
        {"ended_by": None, "exit_code": 0},
    ),
}


@pytest.mark.parametrize("case", ENDS)
def test_the_limit_that_ended_a_program_is_named(case: str, safe: Sandbox) -> None:
    code, expected = ENDS[case]
    outcome = python(safe, code, replace(LIMITS, cpu_seconds=1 if "loop" in case else 20))
    assert {name: getattr(outcome, name) for name in expected} == expected, outcome
    assert len(outcome.stdout) <= LIMITS.output_bytes and len(outcome.stderr) <= LIMITS.output_bytes


STAYS = {
    "sleeps": "import time; time.sleep(60)",
    "stops itself": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "ignores every signal": (
        "import signal, time\nfor n in range(1, 65):\n try: signal.signal(n, signal.SIG_IGN)\n"
        " except OSError: pass\nwhile True: time.sleep(1)"
    ),
    "closes everything": "import os, time\nfor n in range(3): os.close(n)\ntime.sleep(60)",
}


@pytest.mark.parametrize("case", STAYS)
def test_a_program_that_does_not_end_is_ended_in_time(case: str, safe: Sandbox) -> None:
    outcome = python(safe, STAYS[case], SHORT)
    assert (outcome.exit_code, outcome.signal, outcome.ended_by) == (None, signal.SIGKILL, "seconds")


def test_a_program_can_be_cancelled_at_any_moment(sandbox: Sandbox, temporary: Path) -> None:
    program = Program(("sleep", "34.0625"), bytes(MIB), {"big": File(bytes(3 * MIB))})

    async def cancelled(after: float) -> None:
        running = asyncio.create_task(sandbox.run(program, LIMITS))
        await asyncio.sleep(after)
        for _ in range(2):
            running.cancel()
            await asyncio.sleep(0.001)
        with pytest.raises(asyncio.CancelledError):
            await running
        assert alive(b"34.0625") == []

    for moment in range(0, 60, 6):
        asyncio.run(cancelled(moment / 1000))
        assert [*temporary.iterdir()] == []


DAEMON = """import os, sys, time
if os.fork(): os._exit(7)
os.setsid()
if os.fork(): os._exit(0)
open('started', 'w')
time.sleep(30.0625)
"""


def test_what_a_program_leaves_running_ends_with_it(sandbox: Sandbox) -> None:
    assert python(sandbox, DAEMON).exit_code == 7
    assert alive(b"30.0625") == []


def test_a_cancelled_program_is_dead_before_its_caller_goes_on(sandbox: Sandbox) -> None:
    async def cancelled() -> list[bytes]:
        running = asyncio.create_task(sandbox.run(Program(("sleep", "31.125")), LIMITS))
        while not alive(b"31.125"):  # noqa: ASYNC110  nothing here could set an event
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return alive(b"31.125")

    assert asyncio.run(cancelled()) == []


HOST = """import asyncio, sys
from master_agent.sandbox import Program, ProgramLimits
from master_agent.sandbox.mechanisms import find
program = Program(("sh", "-c", "sleep 33.6875 & sleep 33.6875"))
async def main(): await (await find(sys.argv[1])).run(program, ProgramLimits())
asyncio.run(main())"""


def test_a_program_dies_with_a_caller_that_is_killed(sandbox: Sandbox, temporary: Path) -> None:
    host = subprocess.Popen([sys.executable, "-c", HOST, sandbox.name])
    try:
        while len(alive(b"sleep\x0033.6875")) < 2:
            assert host.poll() is None
            time.sleep(0.02)
    finally:
        host.kill()
        host.wait()
    until = time.monotonic() + 10
    while (alive(b"33.6875") or any(temporary.iterdir())) and time.monotonic() < until:
        time.sleep(0.02)
    assert (alive(b"33.6875"), [*temporary.iterdir()]) == ([], [])


LEFT = """import os
os.symlink('/etc/passwd', 'link'); os.mkfifo('fifo'); open('given', 'w').write('A'); os.link('given', 'twice')
os.mkdir('shut'); open('shut/file', 'w').write('in'); os.chmod('shut/file', 0); os.chmod('shut', 0)
open(b'\\xff\\xfe', 'w'); open('big', 'w').truncate(8 << 20); open('bigger', 'w').truncate((8 << 20) - 1)
for _ in range(5): os.mkdir('m' * 250); os.chdir('m' * 250)
"""


DEEP = """import os
top = os.getcwd()
for _ in range(70): os.mkdir('d'); os.chdir('d')
os.chdir(top)
"""


def test_only_what_can_be_a_file_of_the_user_is_handed_out(safe: Sandbox) -> None:
    deep = safe.name == "bubblewrap"  # where the folder is only watched, a program that nests so deeply is ended
    outcome = python(safe, DEEP + LEFT if deep else LEFT, replace(LIMITS, disk_bytes=12 * MIB))
    assert outcome.exit_code == 0, outcome.stderr
    small = {name: file.content for name, file in outcome.files.items() if len(file.content) < 100}
    assert small == {"given": b"A", "twice": b"A", "shut/file": b"in"}
    reasons = {name[:40]: why for name, why in outcome.left_out.items()}
    assert reasons == {
        **({"d/" * 20: "it lies deeper than 64 folders"} if deep else {}),
        "link": "a link to /etc/passwd",
        "fifo": "a FIFO, device or socket",
        "\\xff\\xfe": "its name is not UTF-8",
        "bigger": "all files together are too much",
        "m" * 40: "its path has more than 1000 bytes",
    }


@pytest.mark.slow
def test_a_hundred_thousand_files_are_an_outcome_too(safe: Sandbox) -> None:
    code = "for i in range(100_000): open(f'{i:06}', 'w')"
    outcome = python(safe, code, replace(LIMITS, seconds=200, cpu_seconds=200, disk_bytes=512 * MIB))
    assert (outcome.exit_code, len(outcome.files), len(outcome.left_out)) == (0, 10_000, 1_001)
    assert outcome.left_out["."] == "89000 more things are not listed"


def test_the_program_cannot_reach_the_process_that_hands_out(safe: Sandbox) -> None:
    code = """import os, resource
for name in ('environ', 'mem', 'maps', 'fd'):
    try: print(open(f'/proc/{os.getppid()}/{name}', 'rb').read(1))
    except OSError: print('no')
try: resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))
except OSError: print('no')
for number in range(1, 65):
    try: os.kill(os.getppid(), number)
    except OSError: pass
print('and we live')"""
    outcome = python(safe, code)
    assert (outcome.exit_code, outcome.stdout.decode()) == (0, "no\n" * 5 + "and we live\n")


def test_children_and_pairs_of_sockets_work_and_sockets_do_not(safe: Sandbox) -> None:
    code = """import asyncio, socket, subprocess
async def main(): return await (await asyncio.create_subprocess_exec('echo', 'yes')).wait()
one, other = socket.socketpair()
try: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
except PermissionError: print('no', flush=True)
print(asyncio.run(main()), one.send(b'x'), flush=True)
for kind in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
    try: socket.socket(kind)
    except PermissionError: print('no')"""
    assert python(safe, code).stdout.split() == [b"no", b"yes", b"0", b"1", *[b"no"] * 4]


def test_no_scratch_folder_stays_behind(sandbox: Sandbox, temporary: Path) -> None:
    deep = "import os\nfor _ in range(300): os.mkdir('d'); os.chdir('d')\nopen('f', 'w'); os.chmod('..', 0)"
    assert python(sandbox, deep).exit_code in (0, None)
    assert [*temporary.iterdir()] == []


ORDINARY = """import asyncio, sys
from pathlib import Path
from master_agent.sandbox import Program, ProgramLimits
from master_agent.sandbox.mechanisms import find
program = Program(("python3", "-c", sys.argv[2]), readable=tuple(map(Path, sys.argv[3:])))
outcome = asyncio.run(asyncio.run(find(sys.argv[1])).run(program, ProgramLimits()))
print(outcome.stdout.decode(), outcome.stderr.decode(), sorted(outcome.files))"""
TOUCHES = """import os
def refused(act, *given):
    try: act(*given)
    except OSError: return
    print('done', act, given)
for act, *given in ((os.chmod, 0o777), (os.utime,), (os.chown, -1, -1), (os.setxattr, 'user.x', b'x'), (os.listdir,),
                    (os.unlink,), (os.truncate, 0), (os.rename, 'here'), (os.link, 'here'), (open,)):
    refused(act, OWN, *given)
for act, *given in ((os.kill, 0), (os.setpriority, 5), (os.sched_setaffinity, [0])):
    refused(act, *((os.PRIO_PROCESS,) if act is os.setpriority else ()), PID, *given)
import ctypes
kernel = ctypes.CDLL(None)
if kernel.inotify_add_watch(kernel.inotify_init(), os.path.dirname(OWN).encode(), 0xfff) >= 0: print('watched')
open('x', 'w'); print('looked')"""
CHANGES = """import os, fcntl
opened = os.open(OWN, os.O_RDONLY)
for act in (lambda: os.fchmod(opened, 0o777), lambda: os.utime(opened, (1, 1)), lambda: os.fchown(opened, -1, GROUP),
            lambda: os.setxattr(opened, 'user.x', b'x'), lambda: fcntl.ioctl(opened, 0x40086602, b'\\0' * 8)):
    try: act()
    except OSError: continue
    print('done')
open('x', 'w'); print('looked')"""


class Ordinary:
    """A user who owns a folder with a file; when the tests are root's, one that is nobody else."""

    def __init__(self, folder: str) -> None:
        self.folder, self.own = Path(folder), Path(folder, "own")
        self.own.write_text("mine")
        self.python, self.rights = sys.executable, dict[str, Any]()
        if os.geteuid() == 0:
            self.python, self.rights = "/usr/bin/python3", {"user": 54321, "group": 54321, "extra_groups": []}
            if not (open_to_all(Path(self.python)) and open_to_all(ROOT / "master_agent")):
                pytest.skip("an ordinary user cannot read this program")
            for path in (self.folder, self.own):
                os.chown(path, 54321, 54321)

    def run(self, name: str, code: str, *readable: Path) -> tuple[str, str]:
        """What comes of a program: of stdout, stderr and names of files one line, and what went wrong."""
        environ = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [self.python, "-c", ORDINARY, name, code, *map(str, readable)]
        ran = subprocess.run(command, env=environ, capture_output=True, text=True, cwd="/", **self.rights)
        return ran.stdout, ran.stderr


@pytest.mark.parametrize("name", ["bubblewrap", "landlock"])
def test_what_an_ordinary_user_owns_cannot_be_touched(name: str) -> None:
    sandbox_called(name)
    with tempfile.TemporaryDirectory() as folder:
        user = Ordinary(folder)
        with subprocess.Popen(["sleep", "60"], **user.rights) as other:
            said = user.run(name, f"OWN, PID = {str(user.own)!r}, {other.pid}\n{TOUCHES}")
            other.kill()
        assert said == ("looked\n  ['x']\n", "")
        assert (user.own.read_text(), user.own.stat().st_mode & 0o777) == ("mine", 0o644)


@pytest.mark.parametrize("name", ["bubblewrap", "landlock"])
def test_what_is_shown_to_a_program_of_what_its_user_owns_cannot_be_changed_by_opening_it(name: str) -> None:
    sandbox_called(name)
    with tempfile.TemporaryDirectory() as folder:
        user = Ordinary(folder)
        code = f"OWN, GROUP = {str(user.own)!r}, {user.own.stat().st_gid}\n{CHANGES}"
        assert user.run("unsafe", code)[0].count("done") >= 3
        user.own.chmod(0o644)
        os.utime(user.own, (2, 2))
        assert user.run(name, code, user.folder) == ("looked\n  ['x']\n", "")
        assert (user.own.stat().st_mode & 0o777, user.own.stat().st_mtime) == (0o644, 2)


def test_every_mechanism_says_whether_it_works_or_why_not() -> None:
    found = asyncio.run(look())
    assert [mechanism.name for mechanism in found][:2] == ["bubblewrap", "landlock"]
    assert all(bool(mechanism.gaps) == (mechanism.sandbox is not None) for mechanism in found)
    assert all(mechanism.reason for mechanism in found if mechanism.sandbox is None)
    with pytest.raises(SandboxError, match="there is no sandbox called 'bubble'"):
        asyncio.run(find("bubble"))
