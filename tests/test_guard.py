"""The promise that no test leaves the machine, kept in the tests' own process and in the programs they start."""

import socket

import pytest

from tests.conftest import Cli


def test_no_socket_of_a_test_leaves_the_machine() -> None:
    with pytest.raises(ConnectionRefusedError, match="not this machine"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_no_program_that_a_test_starts_leaves_the_machine(cli: Cli) -> None:
    ran = cli("plan", "Greet", "--attempts", "1", "--debug", env={"OPENAI_API_KEY": "sk-not-a-real-key"})

    assert ran.code == 4
    assert "a test tried to look up api.openai.com" in ran.err
