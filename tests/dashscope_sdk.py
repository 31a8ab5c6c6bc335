"""Alibaba's official SDK against a service on this machine; run by a Python that has it, and says in JSON what it got.

Usage: PYTHON dashscope_sdk.py hear|speak|cancel|qwen|say URL KEY
"""

# The SDK is not here, so nothing is known of its types:
# mypy: ignore-errors

import base64
import hashlib
import json
import sys
import threading

import dashscope
from dashscope.audio.asr import Recognition, RecognitionCallback
from dashscope.audio.qwen_omni import MultiModality, OmniRealtimeCallback, OmniRealtimeConversation
from dashscope.audio.qwen_omni.omni_realtime import TranscriptionParams
from dashscope.audio.qwen_tts_realtime import QwenTtsRealtime, QwenTtsRealtimeCallback
from dashscope.audio.tts_v2 import AudioFormat, ResultCallback, SpeechSynthesizer

PIECES = [bytes([1, 0]) * 1600] * 12  # 1.2 s


class Ears(RecognitionCallback):
    def __init__(self):
        self.sentences, self.errors = [], []

    def on_event(self, result):
        sentence = result.get_sentence()
        if result.is_sentence_end(sentence):
            self.sentences.append(sentence["text"])

    def on_error(self, result):
        self.errors.append(str(result.message))


def hear(url, key):
    ears = Ears()
    recognition = Recognition(model="paraformer-realtime-v2", format="pcm", sample_rate=16000, callback=ears)
    recognition.start()
    for piece in PIECES:
        recognition.send_audio_frame(piece)
    recognition.stop()
    return {"sentences": ears.sentences, "errors": ears.errors}


class Mouth(ResultCallback):
    def __init__(self):
        self.sound, self.errors, self.types = b"", [], []
        self.some = threading.Event()

    def on_data(self, data):
        self.sound += data
        self.some.set()

    def on_event(self, message):
        self.types.append(json.loads(message)["payload"]["output"]["type"])

    def on_error(self, message):
        self.errors.append(message)


def speak(url, key, cancel=False):
    mouth = Mouth()
    voice = SpeechSynthesizer(
        model="cosyvoice-v2", voice="longxiaochun_v2", format=AudioFormat.PCM_24000HZ_MONO_16BIT, callback=mouth
    )
    voice.streaming_call("你好，")
    voice.streaming_flush()
    voice.streaming_call("今天天气很好。")
    if cancel:
        mouth.some.wait(10)
        voice.streaming_cancel()
    else:
        voice.streaming_complete()
    return {"sha256": hashlib.sha256(mouth.sound).hexdigest(), "errors": mouth.errors, "types": mouth.types}


class Events(OmniRealtimeCallback):
    def __init__(self):
        self.events = []
        self.created, self.finished = threading.Event(), threading.Event()

    def on_open(self):
        pass

    def on_close(self, close_status_code, close_msg):
        self.finished.set()

    def on_event(self, response):
        self.events.append(response)
        if response["type"] == "session.created":
            self.created.set()
        if response["type"] == "session.finished":
            self.finished.set()


def qwen(url, key):
    told = Events()
    talk = OmniRealtimeConversation(
        model="qwen3-asr-flash-realtime", callback=told, url=url.replace("inference", "realtime")
    )
    talk.connect()
    told.created.wait(10)
    params = TranscriptionParams(language="zh", sample_rate=16000, input_audio_format="pcm", corpus_text="小智")
    talk.update_session(output_modalities=[MultiModality.TEXT], enable_turn_detection=True, transcription_params=params)
    for piece in PIECES:
        talk.append_audio(base64.b64encode(piece).decode())
    talk.send_raw(json.dumps({"event_id": talk._generate_event_id(), "type": "session.finish"}))
    told.finished.wait(10)
    texts = [event["transcript"] for event in told.events if event["type"].endswith("transcription.completed")]
    return {"texts": texts, "errors": [event for event in told.events if event["type"] == "error"]}


class Spoken(QwenTtsRealtimeCallback):
    def __init__(self):
        self.sound, self.errors = b"", []
        self.created, self.done = threading.Event(), threading.Event()

    def on_event(self, response):
        if response["type"] == "session.created":
            self.created.set()
        elif response["type"] == "response.audio.delta" and response["response_id"] == "resp_1":
            self.sound += base64.b64decode(response["delta"])
        elif response["type"] == "response.done":
            self.done.set()
        elif response["type"] == "error":
            self.errors.append(response["error"])
            self.done.set()


def say(url, key):
    told = Spoken()
    voice = QwenTtsRealtime(model="qwen3-tts-flash-realtime", callback=told, url=url.replace("inference", "realtime"))
    voice.connect()
    told.created.wait(10)
    voice.update_session(voice="Cherry", mode="commit", speech_rate=1.0)
    voice.append_text("今天天气很好。")
    voice.commit()
    told.done.wait(10)
    voice.close()
    return {"sha256": hashlib.sha256(told.sound).hexdigest(), "errors": told.errors}


what, where, secret = sys.argv[1:]
dashscope.api_key, dashscope.base_websocket_api_url = secret, where
does = {"hear": hear, "speak": speak, "cancel": lambda *both: speak(*both, cancel=True), "qwen": qwen, "say": say}
sys.stdout.write(json.dumps(does[what](where, secret)) + "\n")
