"""What is bought from clouds in a month, and what it costs. Pure."""

from dataclasses import dataclass
from typing import Final

from xiaozhi.plan.model import Demand

_DAYS: Final = 30
# Mandarin is spoken at four to five characters a second; models count about one token for each.
CHARS_PER_REPLY_S: Final = 4.5
_TOKENS_PER_CHAR: Final = 1.0
# Extra requests for late answers: what [llm.hedge] share allows.
_HEDGES: Final = 0.05


@dataclass(frozen=True, slots=True)
class Prices:
    """What is paid; None where it is not known.

    Attributes:
        tokens_in, tokens_out: of the language model, for a million tokens.
        voice_chars: of the voice, for a million characters.
        node: of one node, for a month.
        currency: in which.
    """

    tokens_in: float | None = None
    tokens_out: float | None = None
    voice_chars: float | None = None
    node: float | None = None
    currency: str = "USD"


@dataclass(frozen=True, slots=True)
class Month:
    """A month of 30 days.

    Attributes:
        turns: answered.
        requests: to the language model, with speculation and hedges.
        tokens_in, tokens_out: of these requests.
        voice_chars: that are spoken.
        costs: by what is paid for; only what has a price.
        currency: of the costs.
    """

    turns: float
    requests: float
    tokens_in: float
    tokens_out: float
    voice_chars: float
    costs: dict[str, float]
    currency: str


def month(
    demand: Demand, prices: Prices, *, nodes: int, hours_per_day: float, tokens_in: float, replies_per_turn: float
) -> Month:
    """What a month takes.

    Args:
        demand: of all devices, in the hours in which they are used.
        prices: known ones.
        nodes: that run all the time.
        hours_per_day: in which the devices are used as `demand` says, above 0 to 24.
        tokens_in: of one request: agent, tools, history and question.
        replies_per_turn: replies that are begun for one that is given.

    Raises:
        ValueError: an hour or a number of tokens that cannot be.
    """
    if not 0 < hours_per_day <= 24 or tokens_in < 0:
        raise ValueError("a day has above 0 and at most 24 hours, and tokens are not negative")
    turns = demand.turns_per_s * 3600.0 * hours_per_day * _DAYS
    requests = turns * replies_per_turn * (1.0 + _HEDGES)
    chars = demand.reply_s * CHARS_PER_REPLY_S
    spoken = turns * replies_per_turn * chars
    sums = {
        "tokens in": (requests * tokens_in / 1e6, prices.tokens_in),
        "tokens out": (requests * chars * _TOKENS_PER_CHAR / 1e6, prices.tokens_out),
        "voice": (spoken / 1e6, prices.voice_chars),
        "nodes": (float(nodes), prices.node),
    }
    return Month(
        turns=turns,
        requests=requests,
        tokens_in=requests * tokens_in,
        tokens_out=requests * chars * _TOKENS_PER_CHAR,
        voice_chars=spoken,
        costs={name: amount * price for name, (amount, price) in sums.items() if price is not None},
        currency=prices.currency,
    )
