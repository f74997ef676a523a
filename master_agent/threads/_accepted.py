"""From a server's complaint about a request to what later requests leave out: each refusal is learnt once."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from master_agent.threads import Capabilities

_UNSUPPORTED = re.compile(
    r"not (be )?support|unsupported|doesn't support|unrecogni[sz]ed|unknown|unexpected|not permitted|not allowed"
    r"|extra inputs|only the default|unavailable|deprecated|verified",
    re.IGNORECASE,
)
_ABOUT_FORMAT = re.compile(r"response_format|text\.format|json_schema|json_object|structured output", re.IGNORECASE)
_ABOUT_STRICT = re.compile(r"\bstrict\b|schema for function", re.IGNORECASE)
_ABOUT_TOOLS = re.compile(
    r"(not|n't) support (tools?|tool (use|calls?|calling)|function calling)\b|enable-auto-tool-choice"
    r"|\b(tools?|tool (use|calling)|function calling) (is|are) not (supported|enabled)"
    r"|(unsupported|unrecogni[sz]ed)\b.{0,40}\btools\b",
    re.IGNORECASE,
)
_PARAMETERS = {
    **{
        name: re.compile(rf"\b{name}\b")
        for name in (
            *("temperature", "max_tokens", "max_completion_tokens", "max_output_tokens", "prompt_cache_key"),
            "parallel_tool_calls",
        )
    },
    # "Supported values include 1" is not about it; a name in quotes, of a field, or at the end with a code is.
    "include": re.compile(
        r"encrypted.content|['\"`.]include\b|: include\b|\binclude( [a-z]+_[a-z_]+)?$", re.IGNORECASE
    ),
}
"""What a request can do without, and how complaints name it."""


UNSEEN = "(this model cannot be shown the picture)"
"""What stands in the place of a picture that a model refuses."""

_ABOUT_PICTURES = re.compile(
    r"image|vision|picture|multi-?modal|content\b.*\b(must|should) be a string|expected a string", re.IGNORECASE
)


@dataclass(frozen=True)
class Accepted:
    """What a model on this server has not refused yet; `refused` are names of parameters."""

    capabilities: Capabilities
    refused: frozenset[str] = frozenset()

    def takes(self, parameter: str) -> bool:
        """Whether the parameter has not been refused."""
        return parameter not in self.refused

    def without(self, complaint: str, body: Mapping[str, Any]) -> tuple["Accepted", list[str]]:
        """What is left after the server's complaint about `body`, and the names of what it refused, if anything."""
        able, refused = self.capabilities, []
        unsupported = _UNSUPPORTED.search(complaint) is not None
        asked_format = _format(body)
        if asked_format and _ABOUT_FORMAT.search(complaint):
            weaker = "object" if asked_format == "json_schema" and able.schema == "strict" else able.schema
            able = replace(able, schema=weaker if asked_format == "json_schema" else "none")
            refused.append(f"{'response_format' if 'response_format' in body else 'text.format'} {asked_format}")
        elif _ABOUT_STRICT.search(complaint) and _strict(body):
            able = replace(able, strict_tools=False)
            refused.append("strict")
        elif "messages" in body and body.get("tools") and _ABOUT_TOOLS.search(complaint):
            able = replace(able, tool_calls="text")
            refused.append("tools")
        if able.pictures and _ABOUT_PICTURES.search(complaint) and _shows(body):
            able = replace(able, pictures=False)
            refused.append("pictures")
        if "stream_options" in body and "stream_options" in complaint:
            able = replace(able, usage_in_stream=False)
            refused.append("stream_options")
        elif "stream" in body and unsupported and re.search(r"\bstream(ing)?\b", complaint, re.IGNORECASE):
            able = replace(able, stream_with_tools=False) if "tools" in body else replace(able, stream=False)
            refused.append("stream")
        parameters = [
            name for name, named in _PARAMETERS.items() if name in body and unsupported and named.search(complaint)
        ]
        return Accepted(able, self.refused | frozenset(parameters)), refused + parameters


def _format(body: Mapping[str, Any]) -> str | None:
    """The format that was asked for, in the words of Chat Completions or of Responses."""
    asked = body.get("response_format") or body.get("text", {}).get("format") or {}
    kind: str | None = asked.get("type")
    return kind


def _shows(body: Mapping[str, Any]) -> bool:
    """Whether a picture is shown, in a message or in the output of a tool."""
    said = [*(body.get("messages") or ()), *(body.get("input") or ())]
    contents = [item.get(name) for item in said for name in ("content", "output")]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return any(part.get("type") in ("image_url", "input_image") for part in parts)


def _strict(body: Mapping[str, Any]) -> bool:
    """Whether a tool was asked for strictly, be it nested as in Chat Completions or flat as in Responses."""
    return any(tool.get("function", tool).get("strict") for tool in body.get("tools", ()))
