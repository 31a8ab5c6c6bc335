"""The four stages of a turn: vad, asr, llm, tts. Each is a plain coroutine beside one small file per engine."""
