"""A model of 0.35 million numbers, made here: from nothing to a GGUF file that a real engine loads and runs.

It is a llama of two layers with a vocabulary of its own. Its words are nonsense, for nearly all numbers are drawn by
chance (always the same); its JSON is real, for the engine's grammar sees to that. What grammar leaves open is decided
by a few numbers that are set by hand, in directions of the residual stream that nothing else uses:

* every token has the direction ALWAYS, so a token's weight there is how likely it is in general: words are likely,
  quotes and the end of a turn a little less, odd characters hardly ever;
* a *switch*, one head of attention, looks at the strongest mark in the conversation: tools on offer start one tool
  call, a call that was begun is finished, a finished one ends the turn, a tool's output ends the calling for good;
* a *copy*, one more head, looks at the last agent that was named and makes that word likely: so a task names an agent;
* after a colon comes a quote, after a quote something else, after an opening bracket the closing one: a text is not
  empty, and a list is where it may be.

Without the switch a model of chance rambles: a tool call may begin after any amount of text, so it never does.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Matrix = np.ndarray[Any, np.dtype[np.float64]]

WIDTH, HEADS, LAYERS, INNER, CONTEXT = 128, 4, 2, 128, 32_768
HEAD = WIDTH // HEADS
ALWAYS, TOOLS, CALLING, CALLED, ANSWERED, ON, WITHIN, OVER, AGENT, COLON, BRACKET, QUOTE = range(12)
AGENTS = ("image", "code", "file")
NAMED, COPIED, CHANCE = 16, 20, 24  # where the agents' own directions, their copies and what is random begin

MARKS = {"<tools>": TOOLS, "<tool_call>": CALLING, "</tool_call>": CALLED, "<tool_response>": ANSWERED}
START, END = "<|im_start|>", "<|im_end|>"
WORDS = (*AGENTS, "the", "and", "ing", "agent", "prompt", "plan", "cat", "draw", "write", "save", "name", "arguments")
SPACED = ("a", "the", "of", "to", "and", *AGENTS, "cat", "draw", "write", "save")
JSON = ('":', '",', '"}', '{"', "[{", "}]")

TEMPLATE = """\
{%- if tools %}{{- '<|im_start|>system\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
{{- '\\n</tools><|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- elif message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}{%- if message.content %}{{- message.content }}{%- endif %}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>{"name": "' + call.function.name + '", "arguments": ' }}
{%- if call.function.arguments is string %}{{- call.function.arguments }}
{%- else %}{{- call.function.arguments | tojson }}{%- endif %}{{- '}</tool_call>' }}{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- else %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""


class Vocabulary:
    """The tokens: bytes, signs, words with all their beginnings (they are joined sign by sign), and marks."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.scores: list[float] = []
        self.types: list[gguf.TokenType] = []
        for token, score, kind in self._all():
            if token not in self.tokens:
                self.tokens.append(token)
                self.scores.append(score)
                self.types.append(kind)
        self.of = {token: number for number, token in enumerate(self.tokens)}

    def _all(self) -> Iterator[tuple[str, float, gguf.TokenType]]:
        yield "<unk>", 0.0, gguf.TokenType.UNKNOWN
        for token in ("<s>", "</s>"):
            yield token, 0.0, gguf.TokenType.CONTROL
        for byte in range(256):
            yield f"<0x{byte:02X}>", 0.0, gguf.TokenType.BYTE
        for sign in [*map(chr, range(33, 127)), "▁"]:
            yield sign, -1000.0, gguf.TokenType.NORMAL
        for word in (*WORDS, *(f"▁{word}" for word in SPACED), *JSON):
            for end in range(2, len(word) + 1):
                yield word[:end], -float(end), gguf.TokenType.NORMAL
        for token in (START, END):
            yield token, 0.0, gguf.TokenType.CONTROL
        for mark in (*MARKS, "</tools>", "</tool_response>"):
            yield mark, 0.0, gguf.TokenType.USER_DEFINED

    def likelihood(self) -> Matrix:
        """How likely each token is when nothing speaks for another."""
        whole = {*WORDS, *(f"▁{word}" for word in SPACED)}
        plain = (gguf.TokenType.NORMAL,)
        values = [
            2.0 if token in whole else -4.0 if kind in plain else -9.0
            for token, kind in zip(self.tokens, self.types, strict=True)
        ]
        for token, value in ((END, 2.9), (",", -7.0), ('"', 2.9), ('"}', 2.9), ('",', 2.9), ('":', 2.9)):
            values[self.of[token]] = value
        return np.array(values)


def write(path: Path, seed: int = 7) -> None:
    """Writes the file; the same bytes every time."""
    chance = np.random.default_rng(seed)
    words = Vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, words)
    inside, outside = _embedding(words, chance), _output(words, chance)
    _half(writer, "token_embd.weight", inside)
    for layer, attention in enumerate((_switch(), _copy())):
        _ones(writer, f"blk.{layer}.attn_norm.weight")
        for name, matrix in attention.items():
            _half(writer, f"blk.{layer}.attn_{name}.weight", matrix)
        _ones(writer, f"blk.{layer}.ffn_norm.weight")
        for name in ("gate", "up"):
            _half(writer, f"blk.{layer}.ffn_{name}.weight", chance.standard_normal((INNER, WIDTH)) * 0.03)
        down = chance.standard_normal((WIDTH, INNER)) * 0.05
        down[:CHANCE] = 0
        _half(writer, f"blk.{layer}.ffn_down.weight", down)
    _ones(writer, "output_norm.weight")
    _half(writer, "output.weight", outside)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter, words: Vocabulary) -> None:
    writer.add_name("tiny")
    writer.add_description("a model for tests, mostly of chance; not a language model")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(1e7)
    writer.add_vocab_size(len(words.tokens))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token.encode() for token in words.tokens])
    writer.add_token_scores(words.scores)
    writer.add_token_types(words.types)
    writer.add_bos_token_id(words.of["<s>"])
    writer.add_eos_token_id(words.of[END])
    writer.add_unk_token_id(words.of["<unk>"])
    writer.add_add_bos_token(value=True)
    writer.add_add_eos_token(value=False)
    writer.add_add_space_prefix(value=False)
    writer.add_chat_template(TEMPLATE)


def _embedding(words: Vocabulary, chance: np.random.Generator) -> Matrix:
    """What each token brings into the residual stream."""
    count = len(words.tokens)
    matrix = np.zeros((count, WIDTH))
    matrix[:, CHANCE:] = chance.standard_normal((count, WIDTH - CHANCE)) / np.sqrt(WIDTH - CHANCE)
    matrix[:, ALWAYS] = 1
    for mark, direction in MARKS.items():
        matrix[words.of[mark], direction] = 1
    for number, agent in enumerate(AGENTS):
        for token in (agent, f"▁{agent}"):
            matrix[words.of[token], [AGENT, NAMED + number]] = 1
    for token in (":", '":'):
        matrix[words.of[token], COLON] = 1
    matrix[words.of["["], BRACKET] = 1
    matrix[words.of['"'], QUOTE] = 1
    return matrix


def _output(words: Vocabulary, chance: np.random.Generator) -> Matrix:
    """What of the residual stream speaks for each token."""
    count = len(words.tokens)
    matrix = np.zeros((count, WIDTH))
    matrix[:, CHANCE:] = chance.standard_normal((count, WIDTH - CHANCE)) * 0.1
    matrix[:, ALWAYS] = words.likelihood() * 0.25
    for number, agent in enumerate(AGENTS):
        for token in (agent, f"▁{agent}"):
            matrix[words.of[token], COPIED + number] = 2
            matrix[words.of[token], AGENT] = -1.5  # no agent twice in a row
    for token, direction, weight in (
        ("<tool_call>", ON, 6.0), ("<tool_call>", WITHIN, -6.0), ("<tool_call>", OVER, -6.0),
        ("</tool_call>", WITHIN, 0.8), (",", WITHIN, -1.0), ('",', WITHIN, -1.0),
        (END, OVER, 6.0), (",", OVER, -6.0),
        ('"', COLON, 3.0), ("]", BRACKET, 3.0),
        ('"', QUOTE, -2.0), ('",', QUOTE, -2.0), ('"}', QUOTE, -2.0), ('":', QUOTE, -2.0),
    ):  # fmt: skip
        matrix[words.of[token], direction] = weight
    return matrix


def _attention() -> dict[str, Matrix]:
    return {name: np.zeros((WIDTH, WIDTH)) for name in ("q", "k", "v", "output")}


def _switch() -> dict[str, Matrix]:
    """Head 0 looks at the strongest mark, however far it is: the last pair of a head hardly turns with distance."""
    attention, still = _attention(), HEAD - 2
    attention["q"][still, ALWAYS] = 4
    for mark, strength in ((TOOLS, 3), (CALLING, 6), (CALLED, 9), (ANSWERED, 12)):
        attention["k"][still, mark] = strength
    for row, (mark, turned) in enumerate(((TOOLS, ON), (CALLING, WITHIN), (CALLED, OVER))):
        attention["v"][row, mark] = 0.15
        attention["output"][turned, row] = 1
    return attention


def _copy() -> dict[str, Matrix]:
    """Head 0 looks at the last agent named: of its pairs some turn with distance, and agree best with what is near."""
    attention = _attention()
    for pair in range(5, 9):  # these turn by half a circle in 500 to 10,000 tokens
        attention["q"][2 * pair, ALWAYS] = attention["k"][2 * pair, AGENT] = 1.2
    for number in range(len(AGENTS)):
        attention["v"][number, NAMED + number] = 0.15
        attention["output"][COPIED + number, number] = 1
    return attention


def _half(writer: gguf.GGUFWriter, name: str, matrix: Matrix) -> None:
    writer.add_tensor(name, matrix.astype(np.float16))


def _ones(writer: gguf.GGUFWriter, name: str) -> None:
    writer.add_tensor(name, np.ones(WIDTH, dtype=np.float32))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
