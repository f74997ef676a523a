"""The stand-in for Assistants v2 is proven with the real SDK's own methods, which poll and stream by themselves."""

import asyncio
import warnings
from collections.abc import Iterator

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.beta.threads import Run
from openai.types.beta.threads.run_submit_tool_outputs_params import ToolOutput

from tests.servers.assistant_runs import hangs, says
from tests.servers.assistants import AssistantsServer
from tests.servers.chat import call


@pytest.fixture(autouse=True)
def _deprecated() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def client(server: AssistantsServer) -> AsyncOpenAI:
    return AsyncOpenAI(api_key="test-key", base_url=server.base_url, max_retries=0)


async def begun(sdk: AsyncOpenAI) -> tuple[str, str]:
    """An assistant and a thread with a message."""
    function = {"name": "add", "parameters": {"type": "object", "properties": {}}}
    assistant = await sdk.beta.assistants.create(
        model="test-model",
        instructions="You write.",
        tools=[{"type": "function", "function": function}],  # type: ignore[typeddict-item]
    )
    thread = await sdk.beta.threads.create()
    await sdk.beta.threads.messages.create(thread.id, role="user", content="Hello?")
    return assistant.id, thread.id


def called(run: Run) -> list[str]:
    assert run.required_action is not None
    return [one.id for one in run.required_action.submit_tool_outputs.tool_calls]


def test_the_sdk_polls_submits_reads_messages_and_deletes() -> None:
    async def run(server: AssistantsServer) -> None:
        async with client(server) as sdk:
            assistant, thread = await begun(sdk)
            runs = sdk.beta.threads.runs
            first = await runs.create_and_poll(thread_id=thread, assistant_id=assistant)
            assert (first.status, called(first)) == ("requires_action", ["one", "two"])
            outputs: list[ToolOutput] = [{"tool_call_id": name, "output": "1"} for name in called(first)]
            second = await runs.submit_tool_outputs_and_poll(
                run_id=first.id,
                thread_id=thread,
                tool_outputs=outputs,
            )
            assert second.status == "completed"
            assert second.usage is not None
            assert second.usage.total_tokens == 18
            messages = [one async for one in sdk.beta.threads.messages.list(thread, order="asc")]
            assert [(one.role, one.content[0].text.value) for one in messages] == [  # type: ignore[union-attr]
                ("user", "Hello?"), ("assistant", "Two."),
            ]  # fmt: skip
            steps = [one async for one in runs.steps.list(second.id, thread_id=thread)]
            assert [one.type for one in steps] == ["tool_calls"]
            assert (await sdk.beta.threads.delete(thread)).deleted
            assert (await sdk.beta.assistants.delete(assistant)).deleted

    calls = [call("add", {}, "one"), call("add", {}, "two")]
    with AssistantsServer([says(calls=calls), says("Two.")]) as server:
        asyncio.run(run(server))
        assert (server.bad_bodies, server.existing, server.running) == ([], [], [])


def test_the_sdk_streams() -> None:
    async def run(server: AssistantsServer) -> tuple[list[str], str]:
        async with client(server) as sdk:
            assistant, thread = await begun(sdk)
            async with sdk.beta.threads.runs.stream(thread_id=thread, assistant_id=assistant) as stream:
                deltas = [delta async for delta in stream.text_deltas]
                final = await stream.get_final_run()
            return deltas, final.status

    with AssistantsServer([says("One,\ntwo.")]) as server:
        assert asyncio.run(run(server)) == (["One,\n", "two."], "completed")


def test_the_server_refuses_what_the_service_refused() -> None:
    async def run(server: AssistantsServer) -> None:
        async with client(server) as sdk:
            assistant, thread = await begun(sdk)
            threads = sdk.beta.threads
            first = await threads.runs.create_and_poll(thread_id=thread, assistant_id=assistant)
            with pytest.raises(BadRequestError, match="Can't add messages to"):
                await threads.messages.create(thread, role="user", content="Hello?")
            with pytest.raises(BadRequestError, match="already has an active run"):
                await threads.runs.create(thread, assistant_id=assistant)
            with pytest.raises(BadRequestError, match="Expected tool outputs for call_ids"):
                await threads.runs.submit_tool_outputs(
                    first.id, thread_id=thread, tool_outputs=[{"tool_call_id": "one", "output": "1"}]
                )
            server.expire()
            with pytest.raises(BadRequestError, match='"expired" do not accept tool outputs'):
                await threads.runs.submit_tool_outputs(first.id, thread_id=thread, tool_outputs=[])
            with pytest.raises(BadRequestError, match="Cannot cancel run with status 'expired'"):
                await threads.runs.cancel(first.id, thread_id=thread)
            second = await threads.runs.create(thread, assistant_id=assistant)
            assert server.running == [second.id]
            assert (await threads.runs.cancel(second.id, thread_id=thread)).status == "cancelling"
            assert (await threads.runs.poll(second.id, thread_id=thread)).status == "cancelled"
            with pytest.raises(BadRequestError, match="Unrecognized request argument supplied: colour"):
                await threads.runs.create(thread, assistant_id=assistant, extra_body={"colour": "red"})
            with pytest.raises(NotFoundError, match="thread_99"):
                await threads.messages.list("thread_99")

    calls = [call("add", {}, "one"), call("add", {}, "two")]
    with AssistantsServer([says(calls=calls), hangs()]) as server:
        asyncio.run(run(server))
