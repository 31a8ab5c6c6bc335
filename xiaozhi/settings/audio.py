"""`[audio]` and `[vad]`: sound in both directions."""

from typing import Literal

from pydantic import Field, model_validator

from xiaozhi.settings.section import NextConnection, NextTurn, OnRestart, Provider, Section


class AudioSettings(Section, applies="next turn"):
    """Sound to devices: how replies are encoded and sent. zh: 下行声音：发给设备的声音。"""

    bitrate_bps: int = Field(24_000, ge=6_000, le=128_000)
    """Opus of the replies. 24000 is clear speech, 16000 spares a weak network, above 32000 nobody hears a difference.
    zh: 回答的 Opus 码率（比特每秒）。24000 语音清晰，16000 适合弱网，超过 32000 听不出区别。"""
    complexity: int = Field(5, ge=0, le=10)
    """Effort of the Opus encoder. One 60 ms frame costs 0.24 ms of a core at 0, 0.50 at 5, 0.73 at 10: 100 devices that
    speak at once need 0.8 core at 5. Lower it on a small box.
    zh: Opus 编码的计算量，0 到 10。一帧 60 毫秒的声音在 0、5、10 时分别占用一个核 0.24、0.50、0.73 毫秒：100 台设备
    同时说话，取 5 需要 0.8 个核。机器弱就调低。"""
    lead_ms: int = Field(240, ge=120, le=900)
    """Audio is sent ahead of its playing; this much waits in the device at most. More rides over a rough Wi-Fi; less is
    forgotten when somebody interrupts. New firmware holds 20 frames of 60 ms and drops what comes above.
    zh: 声音提前发给设备的量（毫秒）。多一些能扛住不稳的 Wi-Fi，少一些打断时丢弃得少。新固件最多存 20 帧（每帧 60
    毫秒），再多就会丢掉。"""
    stop_margin_ms: int = Field(200, ge=0, le=2000)
    """Between the end of the last frame and the message that ends the reply, so that nothing is cut off.
    zh: 最后一帧播完到“回答结束”消息之间留的时间（毫秒），免得尾音被切掉。"""
    start_gap_ms: int = Field(80, ge=0, le=500)
    """Between the message that begins a reply and its first frame. The firmware handles that message on its main loop,
    clears its queue and drops what came before: 50 to 100 ms are what a busy display needs. It is hidden behind the
    voice's own delay, and costs time only where the sound is there at once, as from the cache. Programs (they do not
    repeat the session id) need none: with them it is 20 ms at most.
    zh: “回答开始”消息与第一帧之间留的时间（毫秒）。固件在主循环里处理这条消息，会清空播放队列并丢掉之前到的声音：屏幕
    忙的设备需要 50 到 100 毫秒。这段时间藏在语音合成的延迟里，只有声音马上就有（例如来自缓存）时才会多等。电脑或手机
    上的客户端（不回传 session id）不需要：最多只等 20 毫秒。"""
    echo_cancellation: NextConnection[bool] = True
    """Devices whose firmware leaves the echo of their loudspeaker to the server (it announces "aec") have it taken off
    here, so that they can be interrupted and do not hear themselves. While such a device speaks it costs 0.7 ms of a
    core for each 60 ms; under load it is given up first, and nobody is heard over a reply. It needs timestamps: UDP, or
    framing 2, which such a device is told to use when it starts the next time.
    zh: 有的固件把扬声器的回声留给服务器处理（它会声明 aec）：在这里消除回声，设备就能被打断，也不会听见自己。这样的
    设备说话时，每 60 毫秒声音占用一个核 0.7 毫秒；负载高时最先放弃，回答期间就听不见人说话。需要时间戳：UDP，或者
    帧格式 2（设备下次启动时会得到通知）。"""
    codec_workers: OnRestart[int] = Field(0, ge=0, le=32)
    """Threads that encode Opus; 0 goes by the machine: one for each core, four at most. Less than one core of work for
    100 voices, but a single thread that is held up holds up every voice.
    zh: 编码 Opus 的线程数；0 表示按机器而定：每个核一个，最多四个。100 路声音的编码用不满一个核，但只有一个线程时，
    它一停，所有声音都停。"""
    instant_flush: bool = True
    """Silence a device at once when a reply is interrupted, instead of letting it play what it holds (up to 2 s). The
    server ends the reply, and begins and ends an empty one that lasts flush_hold_ms: that empties the device's queue.
    Off, when an unusual client stumbles over it.
    zh: 回答被打断时让设备马上安静，而不是把已收到的声音（最多 2 秒）播完：服务器结束回答，再开始并结束一个空的回答，
    从而清空设备的队列。个别客户端不适应时请关闭。"""
    flush_hold_ms: int = Field(60, ge=50, le=500)
    """zh: 上面那个空回答持续的时间（毫秒）。"""


class VadSettings(Section, applies="at once"):
    """Voice activity: finding speech in the microphone's stream.

    zh: 语音检测 VAD：从麦克风的声音里找出有人说话的部分。
    """

    model: NextTurn[str] = "auto"
    """Silero voice activity detection. "auto" is v6, which is installed with the server. Or the path of a silero .onnx
    file.
    zh: Silero 语音检测模型。auto 是随程序安装的 v6。也可以填一个 silero .onnx 文件的路径。"""
    threshold: NextConnection[float] = Field(0.5, gt=0, lt=1)
    """Speech begins above threshold and ends below release_threshold, which is not above it. A noisy room: raise both.
    Quiet users that are not heard: lower both.
    zh: 高于这个概率算开始说话。环境嘈杂就把两个值都调高，小声说话听不到就都调低。"""
    release_threshold: NextConnection[float] = Field(0.35, gt=0, lt=1)
    """zh: 低于这个概率算停止说话，不能高于 threshold。"""
    min_speech_ms: NextConnection[int] = Field(128, ge=32, le=2000)
    """So much clear speech before it counts, or more of doubtful speech: clicks and coughs are shorter.
    zh: 清楚的语音至少要有这么长（毫秒）才算数，不太清楚的要更长：咔嗒声和咳嗽通常更短。"""
    pre_roll_ms: NextConnection[int] = Field(320, ge=0, le=2000)
    """Sound from before the first voiced moment that recognition gets as well, so that no first consonant is lost.
    zh: 把开口之前这么长（毫秒）的声音也交给识别，免得丢掉第一个辅音。"""
    quiet_dbfs: float = Field(-64.0, ge=-120, le=-45)
    """Sound below this level, after half a second without speech, is not judged: most of the day a room is silent, and
    costs nothing then. When it gets louder, the last 256 ms are judged after all. At -120 everything is judged; full
    scale is 0. Speech is found as before (measured at the default); raise it only where nobody speaks softly or from
    afar.
    zh: 连续半秒无人说话之后，低于这个电平（dBFS）的声音不再交给模型判断：房间大多数时候是安静的，这样几乎不耗 CPU。
    变响时会补判最后 256 毫秒。-120 表示全部判断。"""
    batch_max: int = Field(48, ge=1, le=1024)
    """All talking devices are judged together: at most batch_max at once, gathered for tick_ms. A few devices never
    wait. One costs 0.12 ms, in a batch 0.05 ms each. Waits above max_wait_ms are counted.
    zh: 所有正在说话的设备合在一起判断，一批最多这么多台。单独判断一台要 0.12 毫秒，成批时每台 0.05 毫秒。"""
    tick_ms: float = Field(10.0, ge=0, le=60)
    """zh: 凑一批最多等这么久（毫秒）。设备少的时候不等待。"""
    max_wait_ms: float = Field(50.0, ge=1, le=1000)
    """zh: 等待超过这么久（毫秒）会被计入指标。"""
    max_concurrent: int = Field(1000, ge=1, le=100_000)
    """Devices that are served in one tick; others wait for the next, oldest first. Also: VAD_MAX_CONCURRENT.
    zh: 一个节拍里最多处理的设备数，其余的按等待时间排到下一拍。也可以用环境变量 VAD_MAX_CONCURRENT。"""
    threads: NextTurn[int] = Field(1, ge=1, le=64)
    """onnxruntime: threads of one run, graph optimisation. zh: onnxruntime 一次运行用的线程数。"""
    graph_optimization: NextTurn[Literal["disable", "basic", "extended", "all"]] = "all"
    """zh: onnxruntime 的图优化级别。"""
    provider: NextTurn[Provider] = "cpu"
    """The processor, or "cuda" (needs onnxruntime-gpu) with a memory limit. A missing CUDA is said and "cpu" taken.
    zh: 用 cpu 还是 cuda（需要 onnxruntime-gpu）。没有 CUDA 时会提示并改用 cpu。"""
    gpu_memory_mb: NextTurn[int] = Field(512, ge=64, le=1_048_576)
    """zh: 使用 CUDA 时的显存上限（MB）。"""
    warm_up: bool = True
    """Run the model once at start, so that the first word does not pay for it.
    zh: 启动时先运行一次模型，免得第一句话多等。"""

    @model_validator(mode="after")
    def _hysteresis(self) -> "VadSettings":
        if self.release_threshold > self.threshold:
            raise ValueError("release_threshold must not be above threshold")
        return self
