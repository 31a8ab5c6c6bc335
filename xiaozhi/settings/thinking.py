"""Which models' templates open the thought in the prompt, so that their answers begin in the middle of it."""

import re
from collections.abc import Mapping
from typing import Any, Final

# By the templates that their makers publish: DeepSeek-R1 and what was distilled from it, QwQ, Qwen's models with
# "Thinking" in their names, GLM-Z1, MiniMax-M2. None of them has a switch in its template.
_ALWAYS: Final = re.compile(
    r"deepseek[-_]?r1|\br1[-_]distill|\bqwq\b|qwen.*[-_]thinking|\bglm[-_]z1|\bminimax[-_]m2", re.IGNORECASE
)
# Qwen from 3.5 on, unless it is told not to think.
_SWITCHED: Final = re.compile(r"\bqwen[-_]?3\.[5-9]", re.IGNORECASE)


def begins_in_thought(model: str, extra_body: Mapping[str, Any]) -> bool:
    """Whether the answers of a model may begin in the middle of a thought, going by its name.

    Servers that separate the thoughts, and hosted services do, are told apart by what they send. Pure.

    Args:
        model: as the server calls it, with its owner and its size or without.
        extra_body: what is sent with each request; it may switch thinking off.
    """
    if extra_body.get("reasoning_effort") == "none":  # Ollama then closes the thought in the prompt, of any model
        return False
    if _ALWAYS.search(model):
        return True
    template = extra_body.get("chat_template_kwargs")
    switches = (extra_body, template if isinstance(template, Mapping) else {})
    off = any(switch.get("enable_thinking") is False for switch in switches)
    return not off and _SWITCHED.search(model) is not None
