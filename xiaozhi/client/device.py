"""A complete device in software: speaks, listens, and reports what a person in front of it would have heard."""

import asyncio
from typing import Final

import aiohttp

from xiaozhi.audio.pcm import PcmInt
from xiaozhi.client.errors import ChannelLost
from xiaozhi.client.handset import Handset, Sink
from xiaozhi.client.manners import DeviceState, Manners
from xiaozhi.client.mcp import DeviceMcpServer
from xiaozhi.client.microphone import Microphone, SpeechMicrophone, SpokenUtterance
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.client.report import TurnOutcome, TurnReport
from xiaozhi.client.speaker import decode
from xiaozhi.turn.machine import ListeningMode

# How long the server's record of a turn is waited for after the turn; it is sent right behind `tts/stop`.
_TRACE_TIMEOUT_S: Final = 2.0


class Device(Handset):
    """A handset with somebody who talks to it, turn by turn.

    Args:
        identity, manners, microphone, version, mode, trace, speed, session, tools, sink, aec: see `Handset`.
        decode_reply: give the reply's sound in reports; off where hundreds of devices share a processor.
    """

    def __init__(
        self,
        identity: ClientIdentity,
        *,
        manners: Manners | None = None,
        microphone: Microphone | None = None,
        version: int = 1,
        mode: ListeningMode = ListeningMode.AUTO,
        trace: bool = False,
        decode_reply: bool = True,
        speed: float = 1.0,
        session: aiohttp.ClientSession | None = None,
        tools: DeviceMcpServer | None = None,
        sink: Sink | None = None,
        aec: bool = False,
    ) -> None:
        super().__init__(
            identity,
            manners=manners,
            microphone=microphone,
            version=version,
            mode=mode,
            trace=trace,
            speed=speed,
            session=session,
            tools=tools,
            sink=sink,
            aec=aec,
        )
        self._decode_reply = decode_reply

    async def turn(
        self, speech: SpokenUtterance | PcmInt, *, answer_timeout_s: float = 15.0, reply_timeout_s: float = 120.0
    ) -> TurnReport:
        """Say something, wait until the reply has been played, and report.

        A device that is idle begins to listen first; in manual mode the key is released after the last sample.

        Args:
            speech: int16[n] at 16 kHz, or prepared.
            answer_timeout_s: from the end of speech to `tts/start`.
            reply_timeout_s: from there to the end of playback.
        """
        utterance = speech
        if not isinstance(utterance, SpokenUtterance):
            utterance = await asyncio.to_thread(SpokenUtterance.encode, utterance, self.microphone.frame_ms)
        said_s = utterance.duration_ms / self.speed / 1000.0 + answer_timeout_s
        self.begin_turn()
        try:
            self._wake_up()
            await self.until(lambda: self.manners.microphone_from_ms is not None, reply_timeout_s)
            self.begin_turn()
            self.say(utterance)
            await self.until(lambda: self.turn_log.anchor_ms is not None, said_s)
            if self.mode is ListeningMode.MANUAL:
                await self.until(self._all_said, said_s)
                self.stop()
        except TimeoutError:
            return await self._report(TurnOutcome.NO_ANSWER)
        except ChannelLost:
            return await self._report(TurnOutcome.LOST)
        return await self.reply(answer_timeout_s=answer_timeout_s, reply_timeout_s=reply_timeout_s)

    async def turn_text(
        self, text: str, *, answer_timeout_s: float = 15.0, reply_timeout_s: float = 120.0
    ) -> TurnReport:
        """Type something instead of saying it, as desktop and browser clients do, and report on the reply."""
        self._wake_up()
        self.begin_turn()
        self.turn_log.anchor_ms = self.now_ms()
        if self.connected:
            self.detect(text)
        return await self.reply(answer_timeout_s=answer_timeout_s, reply_timeout_s=reply_timeout_s)

    async def turn_live(self, *, answer_timeout_s: float = 3600.0, reply_timeout_s: float = 120.0) -> TurnReport:
        """Wait for the reply to what a live microphone hears, and report."""
        self._wake_up()
        self.begin_turn()
        return await self.reply(answer_timeout_s=answer_timeout_s, reply_timeout_s=reply_timeout_s)

    async def reply(self, *, answer_timeout_s: float = 15.0, reply_timeout_s: float = 120.0) -> TurnReport:
        """Wait for a reply that is to come, or is under way, until it has been played, and report."""
        log = self.turn_log
        outcome = TurnOutcome.NO_ANSWER
        try:
            await self.until(lambda: log.tts_start_ms is not None, answer_timeout_s)
            outcome = TurnOutcome.STUCK
            await self.until(self._reply_over, reply_timeout_s)
            outcome = TurnOutcome.ANSWERED
            if self.traces:
                await self.until(lambda: log.trace is not None, _TRACE_TIMEOUT_S)
        except TimeoutError:
            pass  # the outcome says how far it came
        except ChannelLost:
            outcome = outcome if outcome is TurnOutcome.ANSWERED else TurnOutcome.LOST
        return await self._report(outcome)

    def _wake_up(self) -> None:
        """Listen, unless the device does so already or will after the reply it is playing."""
        self.advance()
        state, manual = self.manners.state, self.mode is ListeningMode.MANUAL
        if state is DeviceState.IDLE or (manual and state is DeviceState.SPEAKING):
            self.listen()

    def _all_said(self) -> bool:
        return isinstance(self.microphone, SpeechMicrophone) and self.microphone.silent

    def _reply_over(self) -> bool:
        return self.turn_log.tts_stop_ms is not None and not self.manners.replying and self.manners.settled

    async def _report(self, outcome: TurnOutcome) -> TurnReport:
        self.advance()
        playback = self.manners.speaker.playback
        report = self.turn_log.report(outcome, playback)
        report.uplink_dropped = self.uplink_dropped
        if self._decode_reply:
            report.reply_pcm, report.undecodable = await asyncio.to_thread(decode, tuple(playback.heard))
        return report
