"""What a whole run may use: each request and picture is reserved before it goes out, and settled when it has come back.

A budget is tokens, requests and dollars. What is on its way counts with all that it may come to, so that nothing which
runs beside it uses the same rest; whoever finds too little left waits for the others before giving up.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any

from master_agent.errors import ErrorType, LimitError, MasterAgentError, StepError
from master_agent.events import Event, ModelCalled, ModelReplied
from master_agent.limits import Limits
from master_agent.prices import Prices
from master_agent.results import Usage
from master_agent.threads import Call, CallRequest, Reply, Turn, UserTurn
from master_agent.tools import Tool, ToolCall, ToolOutput, Use

OUTPUT = 16_384  # tokens that an answer may have where its agent says nothing and tokens or money are limited
LEAST_OUTPUT = 256  # an answer is not held to fewer: it would be paid for and cut off
PICTURE = 1_500  # tokens of a picture that a model is shown, at most
_BYTES = 3  # of UTF-8 for a token, at least
# An answer that was lost on its way may have been paid for; what was refused was not.
_PERHAPS_PAID: tuple[ErrorType, ...] = ("model_timeout", "malformed_reply")


@dataclass(frozen=True)
class Amount:
    """Something used, or reserved."""

    calls: int = 0
    tokens: int = 0
    cost: Decimal = Decimal(0)

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.calls + other.calls, self.tokens + other.tokens, self.cost + other.cost)


@dataclass
class Held:
    """A reservation: what may be used, and what was, as far as that is known yet."""

    amount: Amount
    used: Amount


@dataclass(frozen=True)
class Left:
    """What is left of a budget; None is without a limit. `alone`: nothing is reserved that might come back."""

    calls: int | None
    tokens: int | None
    cost: Decimal | None
    alone: bool


Want = Callable[[Left], Amount | LimitError]
"""What is to be reserved of what is left, or that it is too little."""


class Budget:
    """What one run may use, in all its processes; `history` is what the earlier ones did."""

    def __init__(self, limits: Limits, used: Usage | None = None, history: Iterable[Event] = ()) -> None:
        self.limits = limits
        self.said: dict[str | None, int] = {}
        """The tokens of each step's conversation, as its last reply told."""
        asked, used = 0, used or Usage()
        for event in history:
            if isinstance(event, ModelCalled):
                asked += 1
            elif isinstance(event, ModelReplied) and event.usage.tokens is not None:
                self.said[event.step] = event.usage.tokens
        # A request whose answer died with its process was made all the same.
        self._spent = Amount(max(asked, used.calls), used.tokens or 0, Decimal(str(used.cost_usd or 0)))
        self._held: list[Held] = []
        self._freed = asyncio.Event()

    @property
    def counts_tokens(self) -> bool:
        """Whether tokens or money are limited, so that an answer's length matters."""
        return self.limits.tokens is not None or self.limits.cost is not None

    def left(self) -> Left:
        """What nobody has used or reserved."""
        gone = sum((held.amount for held in self._held), self._spent)
        limits = self.limits
        return Left(
            None if limits.calls is None else limits.calls - gone.calls,
            None if limits.tokens is None else limits.tokens - gone.tokens,
            None if limits.cost is None else Decimal(str(limits.cost)) - gone.cost,
            alone=not self._held,
        )

    @asynccontextmanager
    async def hold(self, want: Want) -> AsyncIterator[Held]:
        """Reserves what is wanted, when others have given back enough; LimitError when they cannot."""
        while isinstance(amount := want(left := self.left()), LimitError):
            if left.alone:
                raise amount
            await self._freed.wait()
        held = Held(amount, amount)
        self._held.append(held)
        try:
            yield held
        finally:
            self._held.remove(held)
            self._spent += held.used
            self._freed.set()
            self._freed = asyncio.Event()


def reserved(call: Call, budget: Budget, prices: Prices, default_model: str | None) -> Call:
    """Holds each request to the budget: its answer may be no longer than what is left allows."""
    if budget.limits.calls is None and not budget.counts_tokens:
        return call

    async def call_within(request: CallRequest) -> Reply:
        options = request.options
        known = budget.said.get(options.step) if options.turn > 1 else None
        bid = _Bid(request, prices, request.thread.agent.model or default_model, _read(request, known))
        async with budget.hold(partial(bid.want, budget)) as held:
            held.used = bid.amount(bid.read, 0)  # an answer that is lost on its way may have been paid for
            most = bid.output if budget.counts_tokens else None
            try:
                reply = await call(replace(request, options=replace(options, output_tokens=most)))
            except MasterAgentError as error:
                if error.type not in _PERHAPS_PAID:
                    held.used = Amount(calls=1)
                raise
            held.used = bid.settled(reply)
            if reply.usage is not None and reply.usage.tokens is not None:
                budget.said[options.step] = reply.usage.tokens
        if bid.lowered and reply.status == "incomplete" and reply.reason == "max_output_tokens":
            flag = "--max-cost" if budget.limits.tokens is None else "--max-tokens"
            raise _reached(f"an answer was cut off after the {bid.output:,} tokens that were left for it", flag)
        return reply

    return call_within


def payments_reserved(
    use: Use, budget: Budget, price: Decimal | None, tools: Mapping[str, Tool], *, allow_unpriced: bool
) -> Use:
    """Holds what tools pay for to the budget's money: pictures, at so many dollars for each.

    StepError where that price is not known, and for a tool of a package that may spend money: of none the price is.
    """
    if budget.limits.cost is None:
        return use

    async def use_within(call: ToolCall) -> ToolOutput:
        pictures = call.tool == "generate_image"
        if "pay" not in tools[call.tool].effects or ((price is None or not pictures) and allow_unpriced):
            return await use(call)
        if price is None or not pictures:
            what = "these pictures" if pictures else f"what {call.tool} pays for"
            hint = f"Use {'them' if pictures else 'it'} uncounted: --allow-unpriced"
            raise StepError(f"--max-cost: no price is known of {what}", hint=hint, type="settings")
        amount = Amount(cost=price * int(str(call.values["count"])))

        def want(left: Left) -> Amount | LimitError:
            if left.cost is None or left.cost >= amount.cost:
                return amount
            rest = f"${max(left.cost, Decimal(0)):,.4f} of the run's {_whole(budget.limits.cost)} are left"
            return _reached(f"the next pictures cost ${amount.cost:,.4f}, and {rest}", "--max-cost")

        async with budget.hold(want) as held:
            output = await use(call)
            if output.error is not None:
                held.used = Amount()
            return output

    return use_within


@dataclass
class _Bid:
    """What one request may come to. `read` are the tokens of its input, by estimate; `output` is set by `want`."""

    request: CallRequest
    prices: Prices
    model: str | None
    read: int
    output: int = 0

    @property
    def _full(self) -> int:
        return self.request.thread.agent.max_output_tokens or OUTPUT

    @property
    def lowered(self) -> bool:
        """Whether the answer had to be held to fewer tokens than its agent allows."""
        return self.output < self._full

    def want(self, budget: Budget, left: Left) -> Amount | LimitError:
        """What to reserve. An answer is only held to fewer tokens when nobody can give back any more."""
        if left.calls is not None and left.calls < 1:
            may = budget.limits.calls
            return _reached(f"the run has made all the requests to models that it may: {may:,}", "--max-calls")
        least = min(self._full, LEAST_OUTPUT) if left.alone else self._full
        self.output = self._full
        if left.tokens is not None:
            self.output = min(self.output, left.tokens - self.read)
            if self.output < least:
                rest = f"{max(left.tokens, 0):,} of the run's {budget.limits.tokens:,} are left"
                return _reached(f"the next request needs {self.read + least:,} tokens, and {rest}", "--max-tokens")
        if left.cost is not None:
            self.output = min(self.output, self._affordable(left.cost))
            if self.output < least:
                rest = f"${max(left.cost, Decimal(0)):,.4f} of the run's {_whole(budget.limits.cost)} are left"
                cost = self.amount(self.read, least).cost
                return _reached(f"the next request may cost ${cost:,.4f}, and {rest}", "--max-cost")
        return self.amount(self.read, self.output)

    def amount(self, read: int, written: int) -> Amount:
        """One request of so many tokens; it costs nothing that can be counted where its price is unknown."""
        cost = self.prices.tokens(self.model, Usage(input_tokens=read, output_tokens=written))
        return Amount(1, read + written, cost or Decimal(0))

    def settled(self, reply: Reply) -> Amount:
        """What a request has used; what the server did not report is estimated."""
        told = reply.usage or Usage.unknown()
        read = self.read if told.input_tokens is None else told.input_tokens
        written = -(-_size(reply.text) // _BYTES) if told.output_tokens is None else told.output_tokens
        usage = told.model_copy(update={"input_tokens": read, "output_tokens": written})
        return Amount(1, read + written, self.prices.tokens(self.model, usage) or Decimal(0))

    def _affordable(self, dollars: Decimal) -> int:
        """How many tokens an answer may have for so many dollars."""
        nothing, full = self.amount(self.read, 0).cost, self.amount(self.read, self._full).cost
        if full <= dollars:
            return self._full
        return int((dollars - nothing) * self._full / (full - nothing)) if full > nothing else 0


def _whole(dollars: float | None) -> str:
    """The sum as a person said it: $0.05, $1,000."""
    return f"${Decimal(f'{dollars or 0:.12g}'):,f}"


def _reached(message: str, flag: str) -> LimitError:
    return LimitError(message, hint=f"What is done is kept. Go on with more: master-agent resume {flag} NUMBER")


def _read(request: CallRequest, known: int | None) -> int:
    """The tokens of a request's input: those that its conversation is `known` to have, and what is new, by estimate."""
    agent, state = request.thread.agent, request.thread.state
    new = _size(_said(request.turn))
    if known is None:
        tools = [[tool.name, tool.description, tool.parameters] for tool in agent.tools]
        new += _size([agent.instructions, tools, agent.output or {}, list(state.items)])
    return (known or 0) + -(-new // _BYTES)


def _said(turn: Turn) -> list[str]:
    """The texts of a turn, and something of the size of each picture."""
    if isinstance(turn, UserTurn):
        return [turn.text, *(_SHOWN for _ in turn.pictures)]
    return [part for output in turn.outputs for part in (output.text, *(_SHOWN for _ in output.pictures))]


_SHOWN = "data:"


def _size(value: Any) -> int:
    """The bytes of all texts in a value; a picture among them counts as what it costs a model to look at it."""
    match value:
        case str():
            return PICTURE * _BYTES if value.startswith(_SHOWN) else len(value.encode("utf-8", "replace"))
        case Mapping():
            return sum(_size(name) + _size(inner) for name, inner in value.items())
        case list() | tuple():
            return sum(_size(inner) for inner in value)
    return len(str(value))
