"""Agents from Markdown files: what they become, and what is wrong with a file in one clear message."""

import os
from pathlib import Path
from typing import Any

import pytest

from master_agent.catalogue import MAX_BYTES, Agent, AgentLimits, load_agents, parse_agent, read_agent
from master_agent.errors import AgentFileError

TOOLS = ("generate_image", "read_file", "save_result", "write_file")
ROOT = Path(__file__).parent.parent


def parsed(front: str, instructions: str = "Do it.") -> Agent:
    return parse_agent(f"---\n{front}\n---\n{instructions}\n", Path("poet.md"), TOOLS)


def fault(front: str, instructions: str = "Do it.") -> str:
    with pytest.raises(AgentFileError) as caught:
        parsed(front, instructions)
    assert "poet.md" in caught.value.message
    return caught.value.message


def test_a_file_with_every_setting_becomes_an_agent() -> None:
    agent = parsed(
        """name: Poet
description: Writes poems.
when: A poem is wanted.
tools: [read_file, write_file]
finish: [write_file]
hosted: [web_search]
model: some-model
temperature: 0.5
output: files
limits:
  turns: 3
  seconds: 30
  output_tokens: 500""",
        "Write.\n\n---\n\nIn verse.",
    )
    assert agent == Agent(
        name="poet",
        description="Writes poems.",
        instructions="Write.\n\n---\n\nIn verse.",
        when="A poem is wanted.",
        tools=("read_file", "write_file"),
        finish=("write_file",),
        hosted=("web_search",),
        model="some-model",
        temperature=0.5,
        output="files",
        limits=AgentLimits(3, 30.0, 500),
        source=Path("poet.md"),
    )


def test_a_description_and_instructions_are_enough_and_the_file_gives_the_name() -> None:
    agent = parsed("description: Writes.")
    assert (agent.name, agent.tools, agent.output, agent.limits) == ("poet", (), "text", AgentLimits())


def test_an_output_schema_makes_an_agent_of_data() -> None:
    agent = parsed(
        """description: d
output:
  type: object
  properties:
    a: {$ref: "#/$defs/n"}
  $defs: {n: {type: integer}}"""
    )
    assert agent.output == "data"
    assert agent.schema is not None
    assert agent.schema["properties"] == {"a": {"$ref": "#/$defs/n"}}


def test_lines_may_end_as_on_windows_and_a_byte_order_mark_may_stand_before(tmp_path: Path) -> None:
    path = tmp_path / "poet.md"
    path.write_bytes("\ufeff---\r\ndescription: é\r\n---\r\nDo it.\r\n".encode())
    assert read_agent(path, TOOLS).description == "é"


@pytest.mark.parametrize(
    ("front", "said"),
    [
        ("", "has no settings between its lines of ---"),
        ("- a", "has no settings"),
        ("description: [", "has broken YAML at line 3"),
        ("description: a\n\tb: c", "has broken YAML at line 3"),
        ("description: !!python/object:os.system x", "has broken YAML at line 2"),
        ("description: 2026-99-99", "has YAML that cannot be read: month must be in 1..12"),
        ("model: " + "9" * 5000, "has YAML that cannot be read"),
        ("model: " + "[" * 3000 + "]" * 3000, "has YAML that cannot be read"),
        ("description: &d x\nwhen: *d", "has a YAML alias (*name); write the value out"),
        ("name: x", "description is missing"),
        ("description: ''", "description is missing"),
        ("description: 5", "description: expected text, found 5"),
        ("description: d\ntool: [read_file]", 'unknown setting "tool"; did you mean "tools"?'),
        ("description: d\nname: ../etc", 'name: "../etc" is no name'),
        ("description: d\nname: 9lives", "is no name"),
        ("description: d\nname: yes", "name: expected text, found True"),
        ("description: d\nname: planner", '"planner" is the agent that makes the plan'),
        ("description: d\ntools: [read_fil]", 'tools: no tool "read_fil"; did you mean "read_file"?'),
        ("description: d\ntools: read_file", "tools: expected a list of names, found 'read_file'"),
        ("description: d\ntools: [1]", "tools: expected a list of names, found [1]"),
        ("description: d\nfinish: [read_file]", 'finish: "read_file" is not among the tools of this agent'),
        ("description: d\nhosted: [web_serch]", 'hosted: no hosted tool "web_serch"; did you mean "web_search"?'),
        ("description: d\nhosted: web_search", "hosted: expected a list of names, found 'web_search'"),
        ("description: d\ntemperature: 3", "temperature: expected a number from 0 to 2, found 3"),
        ("description: d\ntemperature: true", "temperature: expected a number from 0 to 2, found True"),
        ("description: d\ntemperature: .nan", "temperature: expected a number from 0 to 2, found nan"),
        ("description: d\noutput: html", 'output: expected "text", "files" or a JSON Schema, found \'html\''),
        ("description: d\noutput: {type: array}", "output: a JSON Schema of an object is needed"),
        ("description: d\noutput: {type: object, properties: {a: {type: strin}}}", "output: no JSON Schema: 'strin'"),
        ("description: d\noutput: {type: object, properties: {on: {}}}", "put them in quotes"),
        ("description: d\noutput: {type: object, default: 2026-01-01}", "date is not JSON serializable"),
        ("description: d\noutput: {type: object, $ref: 'https://e.example/s'}", "is outside the file"),
        ("description: d\noutput: {type: object, allOf: [{$ref: '#/$defs/no'}]}", '"/$defs/no" refers to nothing'),
        ("description: d\nlimits: 5", "limits: expected turns, seconds or output_tokens, found 5"),
        ("description: d\nlimits: {turn: 5}", 'limits: unknown limit "turn"; did you mean "turns"?'),
        ("description: d\nlimits: {turns: 0}", "limits.turns: expected a number from 1 to 1,000, found 0"),
        ("description: d\nlimits: {turns: 2.5}", "limits.turns: expected a whole number, found 2.5"),
        ("description: d\nlimits: {seconds: 0}", "limits.seconds: expected a number from 0.001 to 86,400"),
        ("description: d\nlimits: {output_tokens: many}", "limits.output_tokens: expected a number"),
    ],
)
def test_a_wrong_file_is_told_with_what_is_wrong(front: str, said: str) -> None:
    told = fault(front)
    assert said in told
    assert len(told) < 600
    assert told.count("\n") <= 1, "one thing is wrong, so one thing is said"


def test_a_file_without_its_two_lines_is_shown_where_to_look() -> None:
    for text in ("Just words.", "", "---\ndescription: d\n", "\n---\ndescription: d\n---\nx"):
        with pytest.raises(AgentFileError, match="does not begin with settings between two lines of ---") as caught:
            parse_agent(text, Path("poet.md"), TOOLS)
        assert "agents show" in str(caught.value.hint)


def test_every_fault_of_a_file_is_told_at_once() -> None:
    told = fault("nme: x\ntemperature: hot\ntools: [nothing]\nlimits: {turns: x}\noutput: y", "")
    assert [line.split(":")[0].strip().split(" ")[0] for line in told.splitlines()[1:]] == [
        "unknown",
        "description",
        "there",
        "tools",
        "output",
        "temperature",
        "limits.turns",
    ]


def test_what_is_not_a_readable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "gone.md").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.md")
    (tmp_path / "zeros.md").symlink_to("/dev/zero")
    (tmp_path / "latin.md").write_bytes(b"---\ndescription: caf\xe9\n---\nx")
    (tmp_path / "large.md").write_bytes(b"---\n" + b"#" * MAX_BYTES)
    said = {
        "folder": "is not a file",
        "gone": "cannot be read: No such file",
        "pipe": "is not a file",
        "zeros": "is not a file",
        "latin": "is not UTF-8 text (byte 20)",
        "large": "may hold 262,144 bytes",
    }
    for name, words in said.items():
        with pytest.raises(AgentFileError) as caught:
            read_agent(tmp_path / f"{name}.md", TOOLS)
        assert words in caught.value.message


def write(folder: Path, file: str, **front: Any) -> None:
    folder.mkdir(exist_ok=True)
    lines = "\n".join(f"{key}: {value}" for key, value in {"description": "d", **front}.items())
    (folder / file).write_text(f"---\n{lines}\n---\nDo it.")


def test_an_agent_of_a_later_folder_takes_the_place_of_its_namesake(tmp_path: Path) -> None:
    write(tmp_path / "one", "poet.md", description="first")
    write(tmp_path / "one", "b.md")
    write(tmp_path / "two", "other.md", description="second", name="poet")
    (tmp_path / "two" / "notes.txt").write_text("not an agent")
    agents = load_agents([tmp_path / "one", tmp_path / "none", tmp_path / "two"], TOOLS)
    assert list(agents) == ["b", "poet"]
    assert agents["poet"].description == "second"
    assert agents["poet"].source == tmp_path / "two" / "other.md"


def test_a_fault_names_the_file_it_is_in(tmp_path: Path) -> None:
    write(tmp_path / "one", "a.md")
    write(tmp_path / "one", "wrong.md", temperature="hot")
    with pytest.raises(AgentFileError, match=r"one/wrong\.md has faults"):
        load_agents([tmp_path / "one"], TOOLS)


def test_the_agents_that_ship_with_the_program_are_without_fault() -> None:
    from master_agent.tools import load_tools

    agents = load_agents([ROOT / "agents"], load_tools())
    assert {"code", "file", "image"} <= agents.keys()
    assert agents["code"].output == "files"
    assert "save_result" in agents["file"].finish
