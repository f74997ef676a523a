"""From a job on its standard input to the outcome on its standard output: the trusted process beside the program.

It goes to an isolated interpreter as text together with scratch.py, and imports nothing else of the package. It lays
the given files out in the scratch folder, starts the program in it as a child that it has confined, watches what the
program takes, ends it at its limits, kills whatever is left of it, and only then reads the scratch folder and hands it
out. Where it is the first process of a process namespace (`alone`), the program cannot signal it; it is never dumpable,
so that the program cannot look into it or write into its pipes.

The job is the length of a marshalled dictionary (8 bytes), the dictionary, the contents of the files, and the program's
input. The end of standard input means: stop at once. What comes out is told in handout.py. Every module that is
imported here costs milliseconds of every start: hence the private ones.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import select
import sys
import time

from master_agent.sandbox.scratch import SMALLEST, Files, erase, exactly, frame, lay_out, sizes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator
    from typing import Any, BinaryIO

    from master_agent.sandbox.scratch import Job
else:
    import _signal as signal

linux = sys.platform == "linux"
if TYPE_CHECKING or linux:
    from master_agent.sandbox.linux import children, proportional, taken
else:
    from master_agent.sandbox.darwin import children, proportional, taken

TICK = 0.015
DUMPABLE, NO_NEW_PRIVILEGES, SECCOMP, SUBREAPER, DIE_WITH_PARENT = 4, 38, 22, 36, 1
RESTRICT_SELF = 446
"""Numbers of prctl, and Landlock's system call, the same on every architecture."""

SPARE_PROCESSES = 8
STOPPED = "stopped"
_SIGNALS = {int(signal.SIGXCPU): "cpu_seconds", int(signal.SIGXFSZ): "file_bytes"}


def main(control: BinaryIO, job: Job) -> None:
    """Does the job, and hands out."""
    if linux:
        kernel = ctypes.CDLL(None, use_errno=True)
        kernel.prctl(DUMPABLE, 0, 0, 0, 0)
        kernel.prctl(SUBREAPER, 1, 0, 0, 0)
    watch = Watch(job)
    try:
        lay_out(job, control)
        wrong = watch.run(exactly(control, job["input"]))
        if watch.ended != STOPPED:
            with os.fdopen(1, "wb", closefd=False) as out:
                frame(out, b"X", str(wrong).encode()) if wrong else hand_out(out, job, watch)
    except (EOFError, BrokenPipeError):
        pass  # nobody wants it any more
    if job["erase"]:
        erase(job["erase"])
    os._exit(0)  # tidying an interpreter up costs milliseconds


class Watch:
    """The program from its start to the death of its last process."""

    def __init__(self, job: Job) -> None:
        self.job, self.limits = job, job["limits"]
        self.child, self.ended, self.seconds = 0, "", 0.0
        self.status: int | None = None
        self.output: dict[int, bytearray] = {}
        self.names: dict[int, bytes] = {}
        self.alone = job["alone"] and os.getpid() == 1  # else "everybody" would be everybody on the machine
        self.full = False
        self.precise_at, self.rough_then, self.exact_then = 0.0, 0, 0
        self.disk_at = 0.0

    def run(self, given: bytes) -> int:
        """Starts the program and stays until it is over; the error number when it could not be started."""
        wake, waker = os.pipe()
        for end in (wake, waker):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        began = time.monotonic()
        wrong, feed = self.start()
        try:
            if not wrong:
                self.attend(began, wake, feed, given)
        finally:
            self.kill()
        self.disk_at = 0.0
        self.ended = self.ended or self.disk(1.0)  # what came between two looks counts too
        self.seconds = time.monotonic() - began
        for end in list(self.output):
            while self.read(end):
                pass
        return wrong

    def start(self) -> tuple[int, int]:
        """The program's process; the error number of exec, and the end that feeds its standard input."""
        stdin, feed = os.pipe()
        stdout, stderr, failing = os.pipe(), os.pipe(), os.pipe()
        self.child = os.fork()
        if not self.child:
            become(self.job, (stdin, stdout[1], stderr[1]), failing[1])
        for end in (stdin, stdout[1], stderr[1], failing[1]):
            os.close(end)
        for end, name in ((stdout[0], b"O"), (stderr[0], b"E")):
            os.set_blocking(end, False)
            self.output[end], self.names[end] = bytearray(), name
        os.set_blocking(feed, False)
        said = os.read(failing[0], 16)
        os.close(failing[0])
        return int(said or b"0"), feed

    def attend(self, began: float, wake: int, feed: int, given: bytes) -> None:
        """Feeds and reads the program, and looks at what it takes, until it ends or is to be ended."""
        left, poll = memoryview(given), select.poll()
        for end in (0, wake, *self.output):
            poll.register(end, select.POLLIN)
        poll.register(feed, select.POLLOUT) if left else os.close(feed)
        looked = 0.0
        while True:
            ready = dict(poll.poll(TICK * 1000))
            if 0 in ready:
                self.ended = STOPPED
            if wake in ready:
                os.read(wake, 4096)
            for end in [end for end in self.output if end in ready]:
                if not self.read(end):
                    poll.unregister(end)
            if feed in ready and left:
                left = self.feed(feed, left)
                if not left:
                    poll.unregister(feed)
                    os.close(feed)
            self.reap()
            now = time.monotonic()
            if self.status is None and not self.ended and now - looked >= TICK:
                looked = now
                self.ended = self.look(now - began)
            if self.status is not None or self.ended:
                return

    def feed(self, end: int, left: memoryview) -> memoryview:
        """What is left of the program's input once it has taken what it can; nothing when it takes no more."""
        try:
            return left[os.write(end, left[:65536]) :]
        except BlockingIOError:
            return left
        except BrokenPipeError:
            return left[:0]

    def read(self, end: int) -> bool:
        """Takes what the program wrote; whether there may be more now or later."""
        try:
            piece = os.read(end, 65536)
        except BlockingIOError:
            return False
        kept, most = self.output[end], self.limits["output_bytes"]
        if len(kept) + len(piece) > most:
            self.ended = self.ended or "output_bytes"
        kept += piece[: most - len(kept)]
        return bool(piece)

    def reap(self) -> bool:
        """Buries whoever has died; whether anybody is still there."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.child:
                self.status = status

    def look(self, now: float) -> str:
        """The limit that the processes of the program are over after these seconds; empty when none."""
        if now > self.limits["seconds"]:
            return "seconds"
        pids = list(self.others())
        each = [taken(pid) for pid in pids]
        threads, rough = sum(of[1] for of in each), sum(of[2] for of in each)
        buried = resource.getrusage(resource.RUSAGE_CHILDREN)
        if sum(of[0] for of in each) + buried.ru_utime + buried.ru_stime > self.limits["cpu_seconds"]:
            return "cpu_seconds"
        if threads > self.limits["processes"]:
            return "processes"
        if rough > self.limits["memory"] and self.heavy(pids, rough, now):
            return "memory"
        return self.disk(now)

    def heavy(self, pids: list[str], rough: int, now: float) -> bool:
        """Whether the processes hold more than they may when what they share is counted once.

        Counting exactly is slow, so it is not done again before long unless what they hold has grown over the limit.
        """
        if now < self.precise_at and self.exact_then + rough - self.rough_then <= self.limits["memory"]:
            return False
        began = time.monotonic()
        self.rough_then, self.exact_then = rough, sum(proportional(pid) for pid in pids)
        self.precise_at = now + 5 * (time.monotonic() - began)
        return self.exact_then > int(self.limits["memory"])

    def disk(self, now: float) -> str:
        """Whether the scratch folder holds too much, or too many files."""
        if self.job["sized"]:
            there = os.statvfs(".")
            self.full = self.full or there.f_bfree == 0
            held = (there.f_files - there.f_ffree) * SMALLEST
        elif now < self.disk_at:
            return ""
        else:
            began = time.monotonic()
            held = sum(sizes(self.limits["disk_bytes"], self.job["folders"]))
            self.disk_at = now + max(0.05, 5 * (time.monotonic() - began))
        return "disk_bytes" if held > self.limits["disk_bytes"] else ""

    def others(self) -> Iterator[str]:
        """The processes of the program."""
        own = str(os.getpid())
        if self.alone:
            yield from (name for name in os.listdir("/proc") if name.isdigit() and name != own)  # noqa: PTH208
            return
        waiting = [own]
        while waiting:
            for pid in children(waiting.pop()):
                yield pid
                waiting.append(pid)

    def kill(self) -> None:
        """Ends every process of the program, and buries it."""
        until = time.monotonic() + 10
        if not linux:
            everyone(signal.SIGKILL, [*self.others(), str(-self.child)])  # where orphans do not come to us
        while self.reap() and time.monotonic() < until:
            if self.alone:
                everyone(signal.SIGKILL, ["-1"])
            else:
                for number in (signal.SIGSTOP, signal.SIGKILL):  # who is stopped makes no new ones meanwhile
                    everyone(number, list(self.others()))
            time.sleep(0.0005)


def hand_out(out: BinaryIO, job: Job, watch: Watch) -> None:
    """The outcome: how it ended, what it said, and the files it left."""
    status, exit_code, number = watch.status, "-", "-"
    if status is not None and os.WIFEXITED(status):
        exit_code = str(os.WEXITSTATUS(status))
    elif status is not None:
        number = str(os.WTERMSIG(status))
        watch.ended = watch.ended or _SIGNALS.get(int(number), "")
    if watch.full and exit_code != "0":
        watch.ended = watch.ended or "disk_bytes"
    said = f"{exit_code} {number} {int(watch.seconds * 1e6)} {watch.ended or '-'}"
    frame(out, b"S", said.encode())
    for end, text in watch.output.items():
        frame(out, watch.names[end], bytes(text))
    Files(out, job["limits"]).hand_out()
    frame(out, b"Z")


def everyone(number: int, pids: list[str]) -> None:
    """Sends a signal to each that is still there."""
    for pid in pids:
        try:
            os.kill(int(pid), number)
        except (ProcessLookupError, PermissionError):
            continue


def become(job: Job, ends: tuple[int, int, int], failing: int) -> None:
    """Confines this process and turns it into the program; never returns."""
    wrong = errno.EINVAL
    try:
        os.setsid()
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGCHLD, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        for standard, end in enumerate(ends):
            os.dup2(end, standard)
        kernel = ctypes.CDLL(None, use_errno=True)
        if linux:
            kernel.prctl(DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
            kernel.prctl(DUMPABLE, 1, 0, 0, 0)  # the next line needs it; the program would be so anyhow
            with open("/proc/self/oom_score_adj", "wb") as file:  # noqa: PTH123
                file.write(b"1000")  # when the machine runs out of memory, the program goes first
        for name, most in rlimits(job["limits"], job["nproc"]):
            hard = resource.getrlimit(name)[1]
            limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
            after = 1 if name == resource.RLIMIT_CPU and limit != hard else 0  # a signal that can be caught comes first
            resource.setrlimit(name, (limit, limit + after))
        os.umask(0o022)
        if linux and job["confined"]:
            confine(kernel, job)
        os.closerange(3, failing)
        os.closerange(failing + 1, 1024)
        os.execvpe(job["command"][0], job["command"], job["environ"])  # noqa: S606
    except OSError as error:
        wrong = error.errno or wrong
    finally:
        os.write(failing, str(wrong).encode())
        os._exit(127)


def rlimits(limits: dict[str, Any], processes: int) -> Iterator[tuple[int, int]]:
    """What the kernel holds each process to. The watch holds all of them together to less.

    Address space is not memory: runtimes reserve more than they use; so it is only bounded to keep the watch ahead.
    """
    yield resource.RLIMIT_CPU, limits["cpu_seconds"]
    yield resource.RLIMIT_FSIZE, limits["file_bytes"]
    yield resource.RLIMIT_CORE, 1  # 0 does not keep a dump from a crash reporter, 1 does: fs/coredump.c
    yield resource.RLIMIT_NOFILE, 256
    if linux:
        yield resource.RLIMIT_AS, 2 * limits["memory"] + (1 << 30)
        yield resource.RLIMIT_NPROC, processes + SPARE_PROCESSES
        yield resource.RLIMIT_MSGQUEUE, 0


def confine(kernel: Any, job: Job) -> None:
    """Takes from this process what the program may not have: OSError when the kernel does not do it."""

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    def sure(result: int) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), "confine")

    sure(kernel.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    if job["ruleset"] is not None:
        sure(kernel.syscall(RESTRICT_SELF, job["ruleset"], 0))
    text: bytes = job["filter"]
    sure(kernel.prctl(SECCOMP, 2, ctypes.byref(Filter(len(text) // 8, text)), 0, 0))
