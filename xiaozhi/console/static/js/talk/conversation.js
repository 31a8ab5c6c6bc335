/**
 * A device in the browser: the ordinary device protocol over a WebSocket. Knows nothing of the page.
 * @module
 */

const HELLO_MS = 10_000;

/** @typedef {'idle' | 'connecting' | 'listening' | 'speaking'} State */
/** @typedef {'auto' | 'manual' | 'realtime'} Mode */

/** Allowed changes of the state; any other is a message that came too late and is ignored. */
const NEXT = {
  idle: ['connecting'],
  connecting: ['listening', 'idle'],
  listening: ['speaking', 'idle'],
  speaking: ['listening', 'idle'],
};

/**
 * Emits `state`, `heard`, `sentence`, `emotion`, `trace`, `spoke`, `closed` (CustomEvents with a detail).
 */
export class Conversation extends EventTarget {
  /** @type {WebSocket | null} */
  #socket = null;
  #session = '';
  /** @type {State} */
  state = 'idle';
  /** @type {Mode} */
  mode = 'auto';
  /** The key is held, in manual mode. */
  held = false;

  /**
   * @param {import('./microphone.js').Microphone | null} microphone null: typed text only
   * @param {import('./speaker.js').Speaker | null} speaker null: text is shown, nothing is heard
   */
  constructor(microphone, speaker) {
    super();
    this.microphone = microphone;
    this.speaker = speaker;
  }

  /**
   * Connect and introduce ourselves.
   * @param {string} url with everything the server wants to know in its query
   * @param {Mode} mode
   */
  async connect(url, mode) {
    this.mode = mode;
    this.#to('connecting');
    const socket = new WebSocket(url);
    socket.binaryType = 'arraybuffer';
    this.#socket = socket;
    try {
      const rateHz = await this.#greet(socket);
      await this.speaker?.start(rateHz);
    } catch (error) {
      this.close();
      throw error;
    }
    this.#listen();
  }

  /**
   * @param {WebSocket} socket
   * @returns {Promise<number>} the rate of the server's audio, Hz
   */
  #greet(socket) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('talk.no_hello')), HELLO_MS);
      socket.onopen = () => {
        const audio = { format: 'opus', sample_rate: 16000, channels: 1, frame_duration: 60 };
        this.#send({ type: 'hello', version: 1, transport: 'websocket', features: { trace: true }, audio_params: audio });
      };
      socket.onclose = (event) => {
        clearTimeout(timer);
        reject(new Error('talk.refused'));
        this.#closed(event.reason);
      };
      socket.onmessage = ({ data }) => {
        if (typeof data !== 'string') {
          this.speaker?.take(data);
          return;
        }
        const message = JSON.parse(data);
        if (message.type !== 'hello') {
          this.#receive(message);
          return;
        }
        clearTimeout(timer);
        this.#session = message.session_id ?? '';
        resolve(message.audio_params?.sample_rate ?? 24000);
      };
    });
  }

  /** @param {Record<string, unknown>} message */
  #send(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#socket.send(JSON.stringify(this.#session ? { session_id: this.#session, ...message } : message));
  }

  /** @param {Uint8Array<ArrayBuffer>} packet from the microphone */
  sendPacket(packet) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(packet);
  }

  /** @param {any} message */
  #receive(message) {
    switch (message.type) {
      case 'stt':
        this.#say('heard', message.text ?? '');
        break;
      case 'llm':
        this.#say('emotion', { name: message.emotion ?? 'neutral', text: message.text ?? '' });
        break;
      case 'trace':
        this.#say('trace', message);
        break;
      case 'tts':
        if (message.state === 'start') this.#to('speaking');
        else if (message.state === 'sentence_start') this.#say('sentence', message.text ?? '');
        else if (message.state === 'stop') this.#spoken();
        break;
    }
  }

  /** The reply is over: as a device, listen again when it has been played. */
  async #spoken() {
    if (this.state !== 'speaking') return;
    await this.speaker?.drained();
    this.#say('spoke', null);
    // It may have begun to speak again, or been closed, while the rest was played.
    if (this.state === 'speaking') this.#listen();
  }

  #listen() {
    const first = this.state === 'connecting';
    this.#to('listening');
    if (this.mode === 'auto' || (this.mode === 'realtime' && first)) this.#send({ type: 'listen', state: 'start', mode: this.mode });
    this.#gate();
  }

  /** The microphone is open when a device's would be. */
  #gate() {
    if (!this.microphone) return;
    const hears = { auto: this.state === 'listening', manual: this.held, realtime: this.state === 'listening' || this.state === 'speaking' };
    this.microphone.open = hears[this.mode];
  }

  /** @param {Mode} mode */
  setMode(mode) {
    this.mode = mode;
    this.held = false;
    if (this.state === 'listening') {
      if (mode !== 'manual') this.#send({ type: 'listen', state: 'start', mode });
    }
    this.#gate();
  }

  /** The key goes down: whatever is being said, now it is our turn. */
  press() {
    if (this.mode !== 'manual' || this.held || this.state === 'idle' || this.state === 'connecting') return;
    if (this.state === 'speaking') this.interrupt();
    this.held = true;
    this.#to('listening');
    this.#send({ type: 'listen', state: 'start', mode: 'manual' });
    this.#gate();
  }

  /** The key goes up: answer. */
  async release() {
    if (!this.held) return;
    this.held = false;
    await this.microphone?.flush();
    this.#gate();
    this.#send({ type: 'listen', state: 'stop' });
  }

  /** @param {string} text */
  type(text) {
    if (this.state === 'speaking') this.interrupt();
    this.#send({ type: 'listen', state: 'detect', text });
  }

  /** Stop the reply. The server answers with the end of the reply. */
  interrupt() {
    this.#send({ type: 'abort' });
    this.speaker?.clear();
  }

  /** End the conversation. */
  close() {
    this.#socket?.close(1000);
    this.#closed('');
  }

  /** @param {string} reason */
  #closed(reason) {
    if (!this.#socket) return;
    this.#socket.onclose = this.#socket.onmessage = this.#socket.onopen = null;
    this.#socket = null;
    this.#session = '';
    this.held = false;
    this.#to('idle');
    this.#gate();
    this.speaker?.clear();
    this.#say('closed', reason);
  }

  /** @param {State} state */
  #to(state) {
    if (!NEXT[this.state].includes(state)) return;
    this.state = state;
    this.#gate();
    this.#say('state', state);
  }

  /**
   * @param {string} kind
   * @param {any} detail
   */
  #say(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}
