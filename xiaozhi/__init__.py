"""A voice companion server for XiaoZhi devices: one asyncio process that hears, answers and speaks."""

import os

# From 1.29 on onnxruntime reports its use to Microsoft and keeps an identifier of the machine below ~/.cache, on by
# default (Privacy.md of its wheel). This is read when it is loaded, so it stands before every import of it; what is
# said in a house is nobody's business but its owner's. Whoever wants to report sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
