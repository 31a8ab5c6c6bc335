/**
 * The browser's microphone as Opus packets of 60 ms at 16 kHz, as devices send them.
 * @module
 */

const RATE_HZ = 16_000;
const FRAME_MS = 60;
const BITS_PER_S = 24_000;

/** Hears; `start` asks the browser for the microphone. */
export class Microphone {
  /** @type {AudioContext | null} */
  #context = null;
  /** @type {MediaStream | null} */
  #stream = null;
  /** @type {AudioEncoder | null} */
  #encoder = null;
  #timestampUs = 0;
  /** Packets go out only while this is true; the level is shown always. */
  open = false;
  /** Packets handed on. */
  packets = 0;

  /**
   * @param {{onPacket: (packet: Uint8Array) => void, onLevel: (rms: number) => void, onError: (error: Error) => void}} listeners
   */
  constructor({ onPacket, onLevel, onError }) {
    this.onPacket = onPacket;
    this.onLevel = onLevel;
    this.onError = onError;
  }

  /** Raises a DOMException when the user or the system refuses. */
  async start() {
    this.#stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
    this.#context = new AudioContext({ sampleRate: RATE_HZ });
    await this.#context.audioWorklet.addModule(new URL('./capture_worklet.js', import.meta.url));
    this.#encoder = new AudioEncoder({ output: (chunk) => this.#send(chunk), error: this.onError });
    const opus = { frameDuration: FRAME_MS * 1000, application: 'voip' }; // `application` is newer than TypeScript's library
    this.#encoder.configure({ codec: 'opus', sampleRate: RATE_HZ, numberOfChannels: 1, bitrate: BITS_PER_S, opus });
    const node = new AudioWorkletNode(this.#context, 'capture', {
      numberOfInputs: 1,
      numberOfOutputs: 0,
      channelCount: 1,
      channelCountMode: 'explicit',
      processorOptions: { frame: (RATE_HZ * FRAME_MS) / 1000 },
    });
    node.port.onmessage = ({ data }) => this.#take(data);
    this.#context.createMediaStreamSource(this.#stream).connect(node);
    await this.#context.resume();
  }

  /** @param {Float32Array<ArrayBuffer>} samples one frame */
  #take(samples) {
    this.onLevel(rmsOf(samples));
    if (!this.open || this.#encoder?.state !== 'configured') return;
    const data = new AudioData({
      format: 'f32-planar',
      sampleRate: RATE_HZ,
      numberOfChannels: 1,
      numberOfFrames: samples.length,
      timestamp: this.#timestampUs,
      data: samples,
    });
    this.#timestampUs += FRAME_MS * 1000;
    this.#encoder.encode(data);
    data.close();
  }

  /** @param {EncodedAudioChunk} chunk */
  #send(chunk) {
    if (!this.open) return;
    const packet = new Uint8Array(chunk.byteLength);
    chunk.copyTo(packet);
    this.packets += 1;
    this.onPacket(packet);
  }

  /** Wait until what was heard so far has been handed on. */
  async flush() {
    if (this.#encoder?.state === 'configured') await this.#encoder.flush();
  }

  async stop() {
    this.open = false;
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    if (this.#encoder && this.#encoder.state !== 'closed') this.#encoder.close();
    await this.#context?.close();
    this.#stream = this.#encoder = this.#context = null;
  }
}

/**
 * @param {Float32Array} samples
 * @returns {number} 0 to 1
 */
export function rmsOf(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return Math.sqrt(sum / Math.max(1, samples.length));
}
