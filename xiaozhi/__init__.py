"""A voice companion server for XiaoZhi devices: one asyncio process that hears, answers and speaks."""

__version__ = "0.1.0"
