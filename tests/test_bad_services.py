"""A model's server that is not there, or misbehaves: one clear message, its exit code, nothing half-written."""

import pytest

from tests.conftest import Cli, says
from tests.servers import chat
from tests.servers.chat import ChatServer
from tests.servers.loopback import Behaviour, Body
from tests.threads.test_misbehaviour import CASES as ON_EVERY_WIRE
from tests.threads.test_misbehaviour import WIRES, there

PATIENT = ("--attempts", "2", "--model", "m")
QUICK = (*PATIENT, "--call-timeout", "1.5")

CASES: dict[str, tuple[Behaviour, int, str, str]] = {
    # name: what the server does, how often it is asked, the error's type, what the message says
    "401": (chat.error(401, "Incorrect API key provided"), 1, "authentication", "OPENAI_API_KEY"),
    "403": (chat.error(403, "Not for you"), 1, "permission", "Not for you"),
    "404": (chat.error(404, "The model `m` does not exist", reason="model_not_found"), 1, "model_not_found", "m"),
    "400": (chat.error(400, "messages: too long"), 1, "bad_request", "too long"),
    "429": (chat.status(429, headers={"retry-after": "0"}), 2, "rate_limited", "429"),
    "429 for an hour": (chat.status(429, headers={"retry-after": "3600"}), 1, "rate_limited", "3600"),
    "no money": (chat.error(429, "You exceeded your quota", reason="insufficient_quota"), 1, "rate_limited", "quota"),
    "500": (chat.status(500), 2, "server_error", "500"),
    "503": (chat.status(503), 2, "server_error", "503"),
    "html": (chat.html(), 2, "malformed_reply", "hotel"),
    "half a json": (chat.half_json(), 2, "malformed_reply", ""),
    "nothing": (chat.nothing(), 2, "connection", ""),
    "a reset": (chat.reset(), 2, "connection", ""),
    "no choices": (chat.empty_choices(), 2, "malformed_reply", ""),
    "a hang": (chat.hang_before_first_byte(), 2, "model_timeout", "1.5 s"),
    "a hang in the middle": (chat.hang_mid_stream(), 2, "model_timeout", ""),
    "a stream without its end": (chat.stream_without_end(), 2, "malformed_reply", ""),
}


@pytest.mark.parametrize("name", CASES)
def test_a_planner_without_an_answer_ends_with_one_message(cli: Cli, name: str) -> None:
    behaviour, times, kind, said = CASES[name]
    with ChatServer(lambda _: behaviour) as server:
        ran = cli("plan", "Greet", "--openai-base-url", server.base_url, *QUICK)

    assert (ran.code, ran.out) == (4, ""), ran.err
    assert server.count == times
    assert said in ran.err
    assert ran.err.count("master-agent: ") <= 1 and "Traceback" not in ran.err
    assert kind  # told to programs, below


@pytest.mark.parametrize("name", CASES)
def test_a_step_without_an_answer_fails_and_finished_ones_keep_their_results(cli: Cli, name: str) -> None:
    behaviour, times, kind, said = CASES[name]

    def brain(body: Body) -> Behaviour:
        return chat.reply("Fine.") if "good step" in str(body["messages"]) else behaviour

    steps = (
        {"id": "good", "agent": "code", "prompt": "good step", "needs": []},
        {"id": "bad", "agent": "code", "prompt": "x"},
    )
    with ChatServer(brain) as server:
        ran = cli("run", cli.plan(*steps), "--openai-base-url", server.base_url, *QUICK, "--json")

    assert ran.code == 3, ran.err
    results = ran.json["results"]
    assert results["good"]["status"] == "done" and results["good"]["text"] == "Fine."
    assert results["bad"]["error"]["type"] == kind
    assert said in str(results["bad"]["error"])
    assert server.count == times + 1


@pytest.mark.parametrize("wire", ["responses", "assistants"])
@pytest.mark.parametrize("name", ["401", "html", "a stream without its end", "a hang in mid-stream"])
def test_on_every_wire_a_service_that_misbehaves_is_one_message_and_exit_code_4(cli: Cli, wire: str, name: str) -> None:
    case = ON_EVERY_WIRE[name]
    mended = wire in case.mended
    tries = 1 if mended else case.asked
    with there(wire, [case.answer_of(wire)] * tries) as at:
        flags = ("--wire", wire, "--openai-base-url", at.base_url, *(QUICK if "hang" in name else PATIENT))
        ran = cli("agents", "run", "code", "Hi", *flags, "--events")
        assert at.asked() == tries

    assert "Traceback" not in ran.err
    replied = [event for event in ran.events if event["type"] == "model_replied"]
    (finished,) = [event for event in ran.events if event["type"] == "step_finished"]
    if mended:
        assert (ran.code, [event["status"] for event in replied]) == (0, ["completed"])
        return
    assert ran.code == 4
    assert [event["error"]["type"] for event in replied] == [case.type] * tries
    assert finished["result"]["error"]["type"] == case.type


@pytest.mark.parametrize("wire", WIRES)
def test_on_every_wire_a_planner_that_gets_no_answer_says_so_once(cli: Cli, wire: str) -> None:
    with there(wire, [chat.status(503)] * 2) as at:
        ran = cli("plan", "Greet", "--wire", wire, "--openai-base-url", at.base_url, *PATIENT)
        assert at.asked() == 2

    assert (ran.code, ran.out) == (4, "")
    assert ran.err.count("answered 503") == 1, ran.err


def test_a_server_that_is_not_there_is_named(cli: Cli) -> None:
    ran = cli("Greet", "--yes", "--openai-base-url", "http://127.0.0.1:9/v1", *QUICK, "--json")

    assert (ran.code, ran.json["error"]["type"]) == (4, "connection")
    assert "http://127.0.0.1:9/v1" in ran.json["error"]["message"]


def test_retry_after_is_waited_for_and_the_run_ends_well(cli: Cli) -> None:
    behaviours = [chat.status(429, headers={"retry-after": "1"}), chat.reply("Fine.")]
    with ChatServer(behaviours) as server:
        ran = cli("agents", "run", "code", "Hi", "--openai-base-url", server.base_url, *QUICK, "--events")

    replied = [event for event in ran.events if event["type"] == "model_replied"]
    assert (ran.code, [event["status"] for event in replied]) == (0, ["failed", "completed"])
    assert replied[0]["retry_after"] == 1
    called = [event["at"] for event in ran.events if event["type"] == "model_called"]
    assert called[1] > replied[0]["at"]


def test_a_wrong_key_stops_the_run_before_the_other_steps_ask(cli: Cli) -> None:
    steps = [{"id": f"s{i}", "agent": "code", "prompt": "x", "needs": []} for i in range(12)]
    with ChatServer(key="sk-right-and-long-enough") as server:
        ran = cli(
            *("run", cli.plan(*steps), "--openai-base-url", server.base_url, *QUICK, "--concurrency", "2", "--json"),
            env={"OPENAI_API_KEY": "sk-wrong-and-long-enough"},
        )

    assert ran.code == 4
    assert len(server.requests) <= 3
    assert "sk-wrong" not in ran.out + ran.err
    assert {r["status"] for r in ran.json["results"].values()} == {"failed", "not_started"}


def test_a_key_from_elsewhere_is_not_sent_to_an_address_from_the_folder(cli: Cli) -> None:
    with ChatServer() as server:
        cli.file(".env", f"OPENAI_BASE_URL={server.base_url}\n")
        ran = cli("agents", "run", "code", "Hi", "--model", "m", env={"OPENAI_API_KEY": "sk-precious-and-long"})

    assert ran.code == 0
    assert all("sk-precious" not in str(request.headers) for request in server.requests)
    assert "is not sent there" in ran.err


def test_a_key_from_the_same_file_is_sent(cli: Cli) -> None:
    with ChatServer(key="sk-folder-and-long-enough") as server:
        cli.file(".env", f"OPENAI_BASE_URL={server.base_url}\nOPENAI_API_KEY=sk-folder-and-long-enough\n")
        ran = cli("agents", "run", "code", "Hi", "--model", "m", env={"OPENAI_API_KEY": ""})

    assert ran.code == 0, ran.err


def test_a_workspace_that_is_missing_or_cannot_be_written_is_exit_2(cli: Cli) -> None:
    ran = cli("Greet", cli.script(says("x")), "--workspace", "nowhere", "--json")
    assert (ran.code, ran.json["error"]["type"]) == (2, "settings")
    file = cli.file("a-file", "x")
    assert cli("Greet", cli.script(says("x")), "--workspace", str(file)).code == 2
