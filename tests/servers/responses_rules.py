"""What OpenAI refuses of a request for a response: by the SDK's types, by strict schemas, by the order of its items."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter

from tests.servers.chat import type_fault
from tests.servers.loopback import Body

FOLLOWING = ("reasoning", "function_call", "image_generation_call", "code_interpreter_call", "web_search_call")
"""What may stand after reasoning beside a message."""

Fault = tuple[int, str, str | None, str | None]
"""A refusal: status, message, parameter, code."""


@functools.cache
def _adapter() -> tuple[TypeAdapter[Any], frozenset[str]]:
    from openai.types.responses import response_create_params as types

    whole, streamed = types.ResponseCreateParamsNonStreaming, types.ResponseCreateParamsStreaming
    return TypeAdapter(types.ResponseCreateParams), frozenset({*whole.__annotations__, *streamed.__annotations__})


def body_fault(body: Body) -> Fault | None:
    """What is wrong with a request by the SDK's types and by the rules for strict schemas."""
    if fault := type_fault(body, *_adapter()):
        return 400, fault, None, None
    for place, tool in enumerate(body.get("tools") or ()):
        if tool.get("strict") and (why := strict_fault(tool["parameters"])):
            told = f"Invalid schema for function '{tool['name']}': {why}"
            return 400, told, f"tools[{place}].parameters", "invalid_function_parameters"
    asked = body.get("text", {}).get("format", {})
    if asked.get("type") == "json_schema" and asked.get("strict") and (why := strict_fault(asked["schema"])):
        told = f"Invalid schema for response_format '{asked['name']}': {why}"
        return 400, told, "text.format.schema", "invalid_json_schema"
    return None


def strict_fault(schema: Any) -> str | None:
    """Why a schema is not one that OpenAI enforces strictly; None if it is."""
    if isinstance(schema, list):
        return next((why for one in schema if (why := strict_fault(one))), None)
    if not isinstance(schema, dict):
        return None
    if "properties" in schema or schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            return "'additionalProperties' is required to be supplied and to be false."
        if set(schema.get("required", ())) != set(schema.get("properties", {})):
            return "'required' is required to be supplied and to be an array including every key in properties."
    return next((why for one in schema.values() if (why := strict_fault(one))), None)


def order_fault(before: Iterable[Body], new: Sequence[Body], *, stored: bool) -> Fault | None:
    """What is wrong with the items: calls and their outputs, and reasoning without what followed from it."""
    waiting: set[str] = set()
    for item in [*before, *new]:
        if item.get("type") == "function_call":
            waiting.add(item["call_id"])
        elif item.get("type") == "function_call_output":
            if item["call_id"] not in waiting:
                return (
                    400,
                    f"No tool call found for function call output with call_id {item['call_id']}.",
                    "input",
                    None,
                )
            waiting.discard(item["call_id"])
        elif waiting and item.get("role") == "user":
            break
    if waiting:
        return 400, f"No tool output found for function call {min(waiting)}.", "input", None
    for place, item in enumerate(new):
        if item.get("type") != "reasoning":
            continue
        if not stored and not item.get("encrypted_content") and not item.get("content"):
            told = f"Item with id '{item['id']}' not found. Items are not persisted when `store` is set to false."
            return 404, told, "input", None
        following = new[place + 1] if place + 1 < len(new) else {}
        if following.get("type") not in FOLLOWING and following.get("role") != "assistant":
            told = f"Item '{item['id']}' of type 'reasoning' was provided without its required following item."
            return 400, told, "input", None
    return None
