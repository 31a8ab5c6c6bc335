"""`[store]` and `[agents]`: what survives a restart, and agents."""

from pydantic import Field

from xiaozhi.settings.section import Section


class StoreSettings(Section):
    """What is kept of devices and conversations."""

    file: str = Field("xiaozhi.db", min_length=1, max_length=200)
    conversations: bool = True
    keep_days: float = Field(90.0, ge=0, le=36_500)
    keep_turns_per_device: int = Field(2000, ge=1, le=1_000_000)


class AgentsSettings(Section):
    """Agents."""

    default: str = Field("xiaozhi", min_length=1, max_length=40)
    switch_by_voice: bool = True
    feelings: bool = True
