"""Whole runs with models that write their tool calls into the text, and not as they should."""

import json
import re
from typing import Any

from tests.conftest import Cli
from tests.servers.chat import ChatServer, reply
from tests.servers.loopback import Behaviour, Body

AGENT = """---
description: Writes.
tools: [write_file, read_file]
{more}---
You write files.
"""
CONTENT = 'He said "{no: json}",\nand left.\n'


def asked(name: str, **arguments: Any) -> str:
    return json.dumps({"name": name, "arguments": {"path": f"{name}.txt", **arguments}})


def write(path: str, key: str = "arguments") -> str:
    return json.dumps({"name": "write_file", key: {"path": path, "content": CONTENT}})


BROKEN = {
    "unclosed": f"I will write it now.\n<tool_call>\n{write('unclosed.txt')}",
    "bracket": f"<tool_call>\n{write('bracket.txt')[:-1]}\n</tool_call>\n<tool_response>\nok\n</tool_response>\nDone!",
    "fenced": f"Sure! Here is the call:\n\n```json\n{write('fenced.txt', 'parameters')}\n```\n\nThis will write it.",
    "bare": f"{write('bare.txt')} {write('bare2.txt')}",
    "coder": "<function=write_file>\n<parameter=path>\ncoder.txt\n</parameter>\n<parameter=content>\n"
    f"{CONTENT}</parameter>\n</function>\n</tool_call>",
    "react": "Thought: I must write.\nAction: write_file\nAction Input: "
    f"{json.dumps({'path': 'react.txt', 'content': CONTENT})}\nObservation: written\nFinal Answer: It is done.",
    "pythonic": f"<|python_tag|>[write_file(path='pythonic.txt', content={CONTENT!r})]<|eom_id|>",
    "mistral": f"[TOOL_CALLS] [{write('mistral.txt')},]",
    "thought": f"<think>\nI could call <tool_call>.\n</think>\n<tool_call>{write('thought.txt')}</tool_call>",
    "unknown": f'<tool_call>{json.dumps({"name": "save_text", "arguments": {}})}</tool_call>',
    "reminded": '<tool_call>{"name": "write_file", "arguments": {"path": "x.txt", "content": "He said</tool_call>',
}  # fmt: skip
ENDLESS = {
    "strange": '<action><tool_name>write_file</tool_name><arg key="path">strange.txt</arg></action>',
    "never": 'Action: save_text({"path": "never.txt"})\nObservation: saved\nFinal Answer: saved',
}


def model(body: Body) -> Behaviour:
    """A model that calls in the shape that its step is named for, and goes on by what it is told then."""
    first, *_, last = [message["content"] for message in body["messages"][1:]] * 2
    shape = re.findall(r"Shape: (\w+)", first)[0]
    assert "tools" not in body, "it knows of no tools"
    if shape in ENDLESS:
        return reply(ENDLESS[shape])
    if last == first:
        return reply(BROKEN[shape])
    if "save_text" in last or "cannot be read" in last:
        return reply(f"<tool_call>\n{write(f'{shape}.txt')}\n</tool_call>")
    assert "really given" in last
    assert re.search(r'<data-\w+ tool="write_file">', last)
    return reply("Final Answer: It is saved." if shape == "react" else "It is saved.")


def test_the_shapes_of_broken_calls_end_in_files_and_an_unknown_one_in_a_named_failure(cli: Cli) -> None:
    cli.file(".master-agent/agents/writer.md", AGENT.format(more="tool_calls: text\n"))
    steps = [{"id": name, "agent": "writer", "prompt": f"Shape: {name}", "needs": []} for name in (*BROKEN, *ENDLESS)]
    with ChatServer(model) as server:
        at = {"OPENAI_BASE_URL": server.base_url, "MASTER_AGENT_MODEL": "test-model"}
        ran = cli("run", cli.plan(*steps), "--json", "--concurrency", "12", "--turns", "6", env=at)
        count = server.count

    assert (ran.code, server.faults) == (3, []), ran.err
    results = ran.json["results"]
    assert {name: results[name]["error"] for name in BROKEN} == dict.fromkeys(BROKEN)
    assert {path.name: path.read_text() for path in cli.folder.glob("*.txt")} == {
        f"{name}.txt": CONTENT.rstrip("\n") if name == "coder" else CONTENT for name in (*BROKEN, "bare2")
    }
    assert {results[name]["text"] for name in BROKEN} == {"It is saved."}
    failed = results["strange"]
    assert (failed["status"], failed["error"]["type"]) == ("failed", "malformed_reply")
    assert "<action><tool_name>write_file" in failed["error"]["message"]
    assert results["never"]["error"]["type"] == "turn_limit"
    with ChatServer(lambda _: reply("I cannot write it.")) as server:
        again = cli("resume", "--json", env={**at, "OPENAI_BASE_URL": server.base_url})
    assert (again.code, again.json["results"]["strange"]["text"]) == (0, "I cannot write it."), "asked again"
    assert count == 2 * len(BROKEN) + 2 + 2 + 6, "a turn more for the unknown tool and each reminder"


def test_a_run_in_text_is_streamed_resumed_recorded_and_replayed_as_any_other(cli: Cli) -> None:
    cli.file(".master-agent/agents/writer.md", AGENT.format(more="tool_calls: text\nfinish: [write_file]\n"))
    plan = cli.plan({"id": "a", "agent": "writer", "prompt": "Shape: react"})
    dies = [False]

    def brain(body: Body) -> Behaviour:
        if len(body["messages"]) > 2 and not dies[0]:
            from tests.servers.chat import error

            dies[0] = True
            return error(400, "no")
        return model(body)

    with ChatServer(brain) as server:
        at = {"OPENAI_BASE_URL": server.base_url, "MASTER_AGENT_MODEL": "test-model"}
        assert cli("run", plan, "--quiet", env=at).code == 4
        resumed = cli("resume", "--json", env=at)
        assert (resumed.code, resumed.json["final"]) == (0, "It is saved."), resumed.err
        assert server.bodies[2] == server.bodies[1], "the very request that was due"
        (cli.folder / "react.txt").unlink()
        recorded = cli("run", plan, "--events", "--record", "run.jsonl", env=at)
    assert recorded.code == 0, recorded.err
    told = "".join(event.get("text", "") for event in recorded.events if event["type"] == "text_delta")
    assert told == "Thought: I must write.It is saved."

    (cli.folder / "react.txt").unlink()
    replayed = cli("run", plan, "--replay", "run.jsonl", "--json")
    assert (replayed.code, replayed.json["final"]) == (0, "It is saved."), replayed.err
    assert (cli.folder / "react.txt").read_text() == CONTENT


def test_an_agent_file_says_how_its_tools_are_called_beside_which_they_are(cli: Cli) -> None:
    cli.file(".master-agent/agents/writer.md", AGENT.format(more="tool_calls: sometimes\n").replace("[write", "text #"))

    ran = cli("agents")

    assert ran.code == 2
    assert 'tool_calls: expected "native" or "text", found \'sometimes\'' in ran.err
    assert "expected a list of names, found 'text'; tools that are called in text are still a list" in ran.err
