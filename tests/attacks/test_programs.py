"""Programs that a model might write: what gets out of no sandbox, and out of each that works on this machine."""

import base64
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.attacks.table import cell, keep
from tests.attacks.world import KEY, MECHANISMS, SECRET, World

Outcome = dict[str, Any]
MIB = 1024 * 1024


@dataclass(frozen=True)
class Attack:
    """A program, and how the outside world shows that it has succeeded.

    `limits` are those that it is to break; without a sandbox it runs under the default ones, in a form that no machine
    is hurt by. `control` is where it succeeds.
    """

    code: str
    succeeded: Callable[[World, Outcome], bool]
    limits: dict[str, Any] = field(default_factory=dict)
    control: str = "unsafe"


def tells(secret: str) -> Callable[[World, Outcome], bool]:
    """Whether a secret came out: in what was printed, or in a file that was handed out."""

    def told(_: World, outcome: Outcome) -> bool:
        files = b"".join(base64.b64decode(content) for content in outcome["files"].values())
        return secret in outcome["stdout"] or secret.encode() in files

    return told


def prints(word: str) -> Callable[[World, Outcome], bool]:
    return lambda _, outcome: word in outcome["stdout"]


def heard(name: str) -> Callable[[World, Outcome], bool]:
    return lambda world, _: world.settled(lambda: getattr(world, name).messages)


ENVIRON = """import glob
for path in glob.glob('/proc/[0-9]*/environ'):
    try: print(open(path).read())
    except OSError as error: fault = error
"""
DAEMON = """import subprocess, sys
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(20)', 'left-{mine}'],
    start_new_session=True, stdin=-3, stdout=-3, stderr=-3)
"""
NAMESPACE = """import ctypes, os
if ctypes.CDLL(None, use_errno=True).unshare(0x10000000): raise OSError(ctypes.get_errno(), 'unshare')
print('new namespace')
"""
FORKS = """import os, time
made = 0
for _ in range(120):
    try: pid = os.fork()
    except OSError: time.sleep(0.02); continue
    if not pid: time.sleep(3); os._exit(0)
    made += 1
print('made 120' if made == 120 else 'fewer', flush=True)
"""
TWELVE = """import os, time
children = []
for _ in range(12):
    pid = os.fork()
    if not pid:
        held = bytearray(b'x') * 40_000_000
        time.sleep(1.0)
        os._exit(0)
    children.append(pid)
print('held' if sum(os.waitpid(pid, 0)[1] for pid in children) == 0 else 'killed', flush=True)
"""

ATTACKS = {
    "reads a secret in the home folder": Attack("print(open('{home}/.secret').read())", tells(SECRET.value)),
    "writes outside the workspace": Attack(
        "open('{home}/outside.txt', 'w').write('x')", lambda world, _: bool(world.planted)
    ),
    "follows a link out of the workspace": Attack(
        "import os\nos.symlink('{home}/.secret', 'link')\nprint(open('link').read())", tells(SECRET.value)
    ),
    "leaves a link out of the workspace behind": Attack(
        "import os, shutil\nos.symlink('{home}/.secret', 'link')\nshutil.copyfile('link', 'taken')",
        tells(SECRET.value),
    ),
    "writes `.git/hooks`": Attack(
        "open('{work}/.git/hooks/post-checkout', 'w').write('x')", lambda world, _: bool(world.planted)
    ),
    "writes `/tmp`": Attack("open('/tmp/{mine}', 'w').write('x')", lambda world, _: bool(world.planted)),
    "writes `/dev/shm`": Attack("open('/dev/shm/{mine}', 'w').write('x')", lambda world, _: bool(world.planted)),
    "connects by TCP": Attack(
        "import socket\nsocket.create_connection(('127.0.0.1', {tcp}), 2).sendall(b'x')", heard("tcp")
    ),
    "sends by UDP": Attack(
        "import socket\nsocket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {udp}))", heard("udp")
    ),
    "connects to a unix socket": Attack(
        "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('{unix}')\ns.sendall(b'x')", heard("unix")
    ),
    "connects to an abstract socket": Attack(
        "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('{abstract}')\ns.sendall(b'x')", heard("abstract")
    ),
    "finds a key in its environment": Attack("import os\nprint(os.environ)", tells(KEY.value), control="naive"),
    "finds a key in `/proc`": Attack(ENVIRON + "raise fault", tells(KEY.value)),
    "kills a program of the user": Attack(
        "import os\nos.kill({sleeper}, 9)", lambda world, _: world.settled(lambda: world.sleeper.poll() is not None)
    ),
    "leaves a daemon behind": Attack(DAEMON, lambda world, _: bool(world.left_running), control="naive"),
    "makes a user namespace": Attack(NAMESPACE, prints("new namespace")),
}
LIMITED = {
    "starts more and more processes": Attack(FORKS, prints("made 120"), {"processes": 32}),
    "takes memory in one process": Attack(
        "held = b'x' * 300_000_000\nprint('held')", prints("held"), {"memory": 128 * MIB}
    ),
    "takes memory in twelve processes": Attack(TWELVE, prints("held"), {"memory": 128 * MIB}),
    "never ends": Attack(
        "import time\nend = time.time() + 2\nwhile time.time() < end: pass\nprint('on')", prints("on"), {"seconds": 0.5}
    ),
    "writes one huge file": Attack(
        "f = open('x', 'wb')\nfor _ in range(40): f.write(bytes(1 << 20))\nf.close()\nprint('all')",
        prints("all"),
        {"file_bytes": 8 * MIB},
    ),
    "writes many files": Attack(
        "for i in range(60): open(f'x{i}', 'wb').write(bytes(1 << 20))\nimport time; time.sleep(0.5); print('all')",
        prints("all"),
        {"disk_bytes": 16 * MIB},
    ),
    "prints without end": Attack(
        "for _ in range(4_000): print('x' * 1000)\nprint('all')",
        lambda _, outcome: len(outcome["stdout"]) > 2 * MIB,
        {"output_bytes": MIB},
    ),
}
FREE = {"output_bytes": 16 * MIB, "processes": 400}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    if sys.platform != "linux":
        pytest.skip("bubblewrap, landlock: parts of Linux")
    with World() as made:
        yield made


def run(world: World, attack: Attack, mechanism: str, limits: dict[str, Any]) -> tuple[bool, Outcome]:
    """Whether the attack succeeds, and what came of its program."""
    world.again()
    places = {name: str(value) if isinstance(value, int) else repr(value)[1:-1] for name, value in world.places.items()}
    code = attack.code
    for name, value in places.items():
        code = code.replace(f"{{{name}}}", value)
    outcome = world.run(mechanism, code, limits)
    try:
        return attack.succeeded(world, outcome), outcome
    finally:
        world.again()


def tried(world: World, name: str, attack: Attack, mechanism: str, request: pytest.FixtureRequest) -> None:
    """The attack succeeds where nothing stops it, and with the mechanism what the table says happens."""
    naive, free = run(world, attack, attack.control, FREE)
    assert naive, f"{name} does not work at all: {json.dumps(free)[:600]}"
    got, outcome = run(world, attack, mechanism, attack.limits)
    found = cell(succeeded=got, ended_by=outcome["ended_by"], stderr=outcome["stderr"])
    keep(request.node, [*ATTACKS, *LIMITED].index(name), name, mechanism, found)
    assert not got, f"{name} got through {mechanism}: {json.dumps(outcome)[:600]}"


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("name", ATTACKS)
def test_what_gets_out_of_no_sandbox_does_not_get_out_of_one(
    world: World, name: str, mechanism: str, request: pytest.FixtureRequest
) -> None:
    tried(world, name, ATTACKS[name], mechanism, request)


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("name", LIMITED)
def test_what_takes_all_there_is_takes_no_more_than_its_limit(
    world: World, name: str, mechanism: str, request: pytest.FixtureRequest
) -> None:
    tried(world, name, LIMITED[name], mechanism, request)
