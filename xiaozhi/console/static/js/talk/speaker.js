/**
 * The browser's loudspeaker for Opus packets, as devices play them.
 * @module
 */
import { rmsOf } from './microphone.js';

/** Decodes and plays. */
export class Speaker {
  /** @type {AudioContext | null} */
  #context = null;
  /** @type {AudioDecoder | null} */
  #decoder = null;
  /** @type {AudioWorkletNode | null} */
  #node = null;
  #rateHz = 24_000;
  #timestampUs = 0;
  #drained = true;
  /** Frames before this one belong to a reply that was interrupted. */
  #keepFromUs = 0;
  /** @type {(() => void)[]} */
  #waiting = [];
  /** Packets taken and frames decoded. */
  packets = 0;
  frames = 0;

  /** @param {{onLevel: (rms: number) => void, onError: (error: Error) => void}} listeners */
  constructor({ onLevel, onError }) {
    this.onLevel = onLevel;
    this.onError = onError;
  }

  /** @param {number} rateHz the decoder's, from the server's hello */
  async start(rateHz) {
    this.#rateHz = rateHz;
    this.#context ??= new AudioContext();
    if (!this.#node) {
      await this.#context.audioWorklet.addModule(new URL('./playback_worklet.js', import.meta.url));
      this.#node = new AudioWorkletNode(this.#context, 'playback', { numberOfInputs: 0, outputChannelCount: [1] });
      this.#node.port.onmessage = () => this.#onDrained();
      this.#node.connect(this.#context.destination);
    }
    await this.#context.resume();
    this.#configure();
  }

  #configure() {
    if (this.#decoder && this.#decoder.state !== 'closed') this.#decoder.close();
    const error = (/** @type {Error} */ problem) => {
      this.#onDrained(); // nobody shall wait for what cannot be played
      this.onError(problem);
    };
    this.#decoder = new AudioDecoder({ output: (data) => this.#play(data), error });
    this.#decoder.configure({ codec: 'opus', sampleRate: this.#rateHz, numberOfChannels: 1 });
  }

  /** @param {ArrayBuffer} packet */
  take(packet) {
    if (!packet.byteLength || !this.#node) return;
    if (this.#decoder?.state !== 'configured') this.#configure(); // a broken packet closes the decoder
    this.packets += 1;
    this.#drained = false;
    this.#timestampUs += 60_000;
    this.#decoder?.decode(new EncodedAudioChunk({ type: 'key', timestamp: this.#timestampUs, data: packet }));
  }

  /** @param {AudioData} data */
  #play(data) {
    const samples = new Float32Array(data.numberOfFrames);
    data.copyTo(samples, { planeIndex: 0, format: 'f32-planar' });
    const { sampleRate, timestamp } = data;
    data.close();
    if (timestamp < this.#keepFromUs) return;
    this.frames += 1;
    this.onLevel(rmsOf(samples));
    this.#node?.port.postMessage({ samples, rate: sampleRate }, [samples.buffer]);
  }

  #onDrained() {
    this.#drained = true;
    this.onLevel(0);
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  /** Be silent at once. */
  clear() {
    this.#keepFromUs = this.#timestampUs + 1;
    this.#node?.port.postMessage({ clear: true });
  }

  /** @returns {Promise<void>} when what was taken has been played */
  async drained() {
    if (this.#drained) return;
    await new Promise((resolve) => this.#waiting.push(() => resolve(undefined)));
  }

  async stop() {
    this.#onDrained();
    if (this.#decoder && this.#decoder.state !== 'closed') this.#decoder.close();
    await this.#context?.close();
    this.#context = this.#decoder = this.#node = null;
  }
}
