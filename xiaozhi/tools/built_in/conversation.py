"""Tools that act on the conversation itself: who speaks, what is remembered, and its end."""

from typing import Final

from xiaozhi.tools.declare import tool
from xiaozhi.tools.host import ToolHost
from xiaozhi.tools.tool import CallingConversation, Tool, ToolContext, ToolError, ToolResult
from xiaozhi.tools.wording import pick, shortened

_MAX_FACT_CHARS: Final = 300
_MAX_TOLD: Final = 60


def tools(host: ToolHost) -> list[Tool]:
    """`change_agent`, `remember`, `forget`, `what_is_remembered`, `end_conversation`."""

    @tool(usable=lambda context: context.conversation is not None and len(context.conversation.agents()) > 1)
    async def change_agent(context: ToolContext, name: str = "") -> str:
        """Become another character from the next reply on.

        Takes:
            name: one of the characters there are; empty to learn which.
        """
        conversation = _conversation(context)
        names = list(conversation.agents())
        wanted = name.strip().casefold()
        chosen = next((each for each in names if each.casefold() == wanted), "") or next(
            (each for each in names if wanted and (wanted in each.casefold() or each.casefold() in wanted)), ""
        )
        if not chosen:
            choice = "、".join(names)
            raise ToolError(pick(context.language, f"可以选的角色有：{choice}。", f"The characters are: {choice}."))
        await conversation.change_agent(chosen)
        return pick(context.language, f"从现在起是{chosen}。", f"From now on: {chosen}.")

    @tool(usable=_in_conversation)
    async def remember(context: ToolContext, fact: str) -> str:
        """Keep a lasting fact about the user (name, taste, family, plans) when they ask for it or it will matter.

        Takes:
            fact: one sentence that stands by itself.
        """
        text = " ".join(fact.split())
        if not text:
            raise ToolError(pick(context.language, "要记住什么呢？", "What should I remember?"))
        await _conversation(context).remember(shortened(text, _MAX_FACT_CHARS))
        return pick(context.language, "记住了。", "Remembered.")

    @tool(usable=_in_conversation)
    async def forget(context: ToolContext, about: str = "", everything: bool = False) -> str:
        """Erase what was remembered about the user, when they ask for it.

        Takes:
            about: words of what to forget.
            everything: erase all of it instead.
        """
        if bool(about.strip()) == everything:
            raise ToolError(pick(context.language, "要忘记什么呢？", "Say what to forget, or everything."))
        count = await _conversation(context).forget("" if everything else about.strip())
        if not count:
            return pick(context.language, "我没有记过这件事。", "I had not remembered anything like that.")
        return pick(context.language, f"忘掉了{count}件事。", f"Forgotten: {count}.")

    @tool(usable=_in_conversation, repeats=True)
    async def what_is_remembered(context: ToolContext, about: str = "") -> str:
        """Tell what is remembered about the user, when they ask what you know about them.

        Takes:
            about: only what has to do with this; empty for everything.
        """
        facts = await _conversation(context).known(about.strip())
        if not facts:
            return pick(context.language, "我还没有记住什么。", "Nothing is remembered yet.")
        return "\n".join(facts[:_MAX_TOLD])

    @tool(usable=_in_conversation)
    async def end_conversation(context: ToolContext) -> ToolResult:
        """End the conversation when the user says goodbye or wants you to stop listening; say a short farewell."""
        return ToolResult(
            pick(context.language, "对话在这句告别之后结束。", "The conversation ends after your farewell."),
            ends_conversation=True,
        )

    return [change_agent, remember, forget, what_is_remembered, end_conversation]


def _in_conversation(context: ToolContext) -> bool:
    return context.conversation is not None


def _conversation(context: ToolContext) -> CallingConversation:
    if context.conversation is None:
        raise ToolError(pick(context.language, "现在没有对话。", "There is no conversation."))
    return context.conversation
