/**
 * Runs on the audio thread: cuts the microphone's stream into frames.
 * Options: `frame`, samples of one frame. Posts a Float32Array of that length for each.
 */
class Capture extends AudioWorkletProcessor {
  /** @param {{processorOptions: {frame: number}}} options */
  constructor(options) {
    super();
    this.frame = new Float32Array(options.processorOptions.frame);
    this.filled = 0;
  }

  /** @param {Float32Array[][]} inputs */
  process(inputs) {
    const samples = inputs[0]?.[0];
    for (let at = 0; samples && at < samples.length; ) {
      const count = Math.min(samples.length - at, this.frame.length - this.filled);
      this.frame.set(samples.subarray(at, at + count), this.filled);
      this.filled += count;
      at += count;
      if (this.filled === this.frame.length) {
        this.port.postMessage(this.frame.slice());
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor('capture', Capture);
