/**
 * Runs on the audio thread: plays frames from a queue, at whatever rate the loudspeaker has.
 * Takes {samples: Float32Array, rate} and {clear: true}; posts 'drained' when the queue has been played.
 */

// So much is collected before a reply begins: the network may then be late by as much.
const LEAD_S = 0.12;
// A reply shorter than the lead must be heard as well.
const PATIENCE_S = 0.25;

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    /** @type {{samples: Float32Array, rate: number}[]} */
    this.queue = [];
    this.position = 0; // in samples of the first frame of the queue
    this.queuedS = 0;
    this.playing = false;
    this.waitedS = 0;
    this.port.onmessage = ({ data }) => {
      if (data.clear) this.clear();
      else {
        this.queue.push(data);
        this.queuedS += data.samples.length / data.rate;
      }
    };
  }

  clear() {
    this.queue = [];
    this.position = 0;
    this.queuedS = 0;
    this.playing = false;
    this.waitedS = 0;
    this.port.postMessage('drained');
  }

  /**
   * @param {Float32Array[][]} _inputs
   * @param {Float32Array[][]} outputs
   */
  process(_inputs, outputs) {
    const out = outputs[0][0];
    if (!this.queue.length) return true;
    if (!this.playing) {
      this.waitedS += out.length / sampleRate;
      if (this.queuedS < LEAD_S && this.waitedS < PATIENCE_S) return true;
      this.playing = true;
      this.waitedS = 0;
    }
    for (let at = 0; at < out.length; at += 1) {
      const value = this.next();
      if (value === null) {
        this.playing = false;
        this.port.postMessage('drained');
        break;
      }
      out[at] = value;
    }
    return true;
  }

  /** The next sample, between two of the frame's where the rates differ; null at the end. */
  next() {
    const frame = this.queue[0];
    if (!frame) return null;
    const { samples, rate } = frame;
    const index = Math.floor(this.position);
    const share = this.position - index;
    const after = index + 1 < samples.length ? samples[index + 1] : (this.queue[1]?.samples[0] ?? samples[index]);
    const value = samples[index] + (after - samples[index]) * share;
    this.position += rate / sampleRate;
    if (this.position >= samples.length) {
      this.position -= samples.length;
      this.queuedS = Math.max(0, this.queuedS - samples.length / rate);
      this.queue.shift();
    }
    return value;
  }
}

registerProcessor('playback', Playback);
