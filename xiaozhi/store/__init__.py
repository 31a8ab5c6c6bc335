"""What survives a restart: devices, agents, conversations, memory, reminders; one SQLite file."""

from xiaozhi.store.agents import Agent
from xiaozhi.store.database import StoreError
from xiaozhi.store.devices import Access, Device, TooManyTries
from xiaozhi.store.store import Store

__all__ = ["Access", "Agent", "Device", "Store", "StoreError", "TooManyTries"]
