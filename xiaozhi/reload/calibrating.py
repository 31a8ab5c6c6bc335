"""A running server measures its box in the background, once, and goes on with what is quickest there."""

import asyncio
import logging
from typing import Final

from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.conversation.engines import About
from xiaozhi.conversation.services import Services
from xiaozhi.plan.calibration import NOT_MEASURED, Calibration, Ground, ground_of, keep, read_calibration
from xiaozhi.plan.measuring import measure
from xiaozhi.reload.reloader import Reloader
from xiaozhi.settings import Settings
from xiaozhi.stages.vad.silero import VadError

_log = logging.getLogger(__name__)

# Behind the start, and behind models that have come meanwhile: whoever talks then is not disturbed by loading more.
_AFTER_S: Final = 5.0
_LOOK_EVERY_S: Final = 30.0
# A box that was busy is measured again, so often at most.
_AGAIN_S: Final = 600.0
_MAX_MEASUREMENTS: Final = 4
# Everybody else goes first.
_NICENESS: Final = 15


def standing(settings: Settings) -> Calibration | None:
    """What was measured of this box with these models; None where nothing holds. Blocking: reads the models once."""
    if not settings.asr.calibrate:
        return None
    return read_calibration(settings.server.data_dir, ground_of(settings))


def about_box(calibration: Calibration | None, settings: Settings) -> About:
    """For the start-up message."""
    return About((NOT_MEASURED if calibration is None else calibration.lines(settings.asr)[0],))


async def calibrate(services: Services, reloader: Reloader) -> None:
    """Measure where nothing that was measured holds, or the box was busy then, and exchange the recogniser for it.

    Runs until cancelled: models may come. Nobody waits for it; what it measures on is built beside what is in use.
    """
    if not services.settings.asr.calibrate:
        return
    loop, measurements, again_at = asyncio.get_running_loop(), 0, 0.0
    measured_for = None
    while measurements < _MAX_MEASUREMENTS:
        another = measured_for is not services.recognition.engine
        await asyncio.sleep(_AFTER_S if another else _LOOK_EVERY_S)
        found = services.calibration
        again = found is not None and found.disturbed and loop.time() >= again_at
        if another or again:
            ground = await asyncio.to_thread(ground_of, services.settings)
            if again or found is None or found.ground != ground:
                measurements, again_at = measurements + 1, loop.time() + _AGAIN_S
                await _measure(services, reloader, ground)
            measured_for = services.recognition.engine


async def _measure(services: Services, reloader: Reloader, ground: Ground) -> None:
    settings, before = services.settings, services.quickest
    pool = WorkerPool(1, "calibrate", niceness=_NICENESS)
    try:
        found = await pool.run(measure, settings, ground)
    except VadError as error:  # it was there when the server began
        _log.warning("this box cannot be measured: %s", error)
        return
    finally:
        pool.close()
    await asyncio.to_thread(keep, settings.server.data_dir, found)
    services.calibration, services.about["box"] = found, about_box(found, settings)
    for line in found.lines(settings.asr):
        _log.info("%s", line)
    if found.quickest != before:
        await reloader.rebuild(["asr.engine"])
