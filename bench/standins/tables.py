"""The tables of a settings file that send a server to the stand-ins."""


def chat_table(url: str, name: str = "stand-in", *, tier: str = "") -> str:
    """`[[llm.endpoints]]` with the chat model at this address, as `ChatStandIn.url` has it; one for each call.

    Args:
        url: without a path.
        name: of the endpoint.
        tier: where it is; left to the server when empty.
    """
    place = f'tier = "{tier}"\n' if tier else ""
    return f"""\
[[llm.endpoints]]
name = "{name}"
base_url = "{url}/v1"
api_key = "none"
model = "bench"
{place}"""


def voice_table(url: str) -> str:
    """`[tts]` with the voice at this address, as `SpeechStandIn.url` has it, and the embedded one behind it."""
    return f"""\
[tts]
engines = ["openai", "espeak"]
[tts.openai]
base_url = "{url}/v1"
api_key = "none"
model = "tts-1"
voice = "alloy"
format = "pcm"
"""
