"""Long-term memory: lasting facts about the users of a device, drawn from conversations in the background."""

from xiaozhi.memory.keeper import MemoryKeeper

__all__ = ["MemoryKeeper"]
