"""What survives a restart: devices, agents, conversations, memory, reminders; one SQLite file."""

from xiaozhi.store.database import StoreError
from xiaozhi.store.devices import DeviceAccess, DeviceRecord, NoRoom
from xiaozhi.store.pending import PendingClient, TooManyTries
from xiaozhi.store.store import Store

__all__ = ["DeviceAccess", "DeviceRecord", "NoRoom", "PendingClient", "Store", "StoreError", "TooManyTries"]
