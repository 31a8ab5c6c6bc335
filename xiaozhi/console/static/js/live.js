/**
 * Live events from the server. One stream for all pages; it reconnects by itself, with growing pauses.
 * @module
 */

const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 20_000;
const KINDS = ['overview', 'turn', 'log', 'alert', 'models'];

/** Emits `overview`, `turn`, `log`, `alert`, `models` (CustomEvents with the record), `state` ('open' | 'lost'), and
 *  `refused` when the server answered, but with something else: perhaps nobody is signed in any more. */
class Live extends EventTarget {
  /** @type {EventSource | null} */
  #source = null;
  #pauseMs = FIRST_PAUSE_MS;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {'closed' | 'open' | 'lost'} */
  state = 'closed';
  /** @type {any} the newest overview */
  overview = null;

  open() {
    this.close();
    this.#connect();
  }

  close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
    this.state = 'closed';
  }

  #connect() {
    const source = new EventSource('./api/events');
    this.#source = source;
    source.addEventListener('open', () => {
      this.#pauseMs = FIRST_PAUSE_MS;
      this.#say('open');
    });
    source.addEventListener('error', () => {
      this.#say('lost');
      if (source.readyState !== EventSource.CLOSED || this.#source !== source) return;
      this.dispatchEvent(new Event('refused'));
      this.#timer = setTimeout(() => this.#connect(), this.#pauseMs);
      this.#pauseMs = Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS);
    });
    for (const kind of KINDS) {
      source.addEventListener(kind, (event) => {
        const detail = JSON.parse(/** @type {MessageEvent} */ (event).data);
        if (kind === 'overview') this.overview = detail;
        this.dispatchEvent(new CustomEvent(kind, { detail }));
      });
    }
  }

  /** @param {'open' | 'lost'} state */
  #say(state) {
    if (this.state === state) return;
    this.state = state;
    this.dispatchEvent(new CustomEvent('state', { detail: state }));
  }

  /**
   * Listen until the signal is aborted.
   * @param {string} kind
   * @param {(detail: any) => void} listener
   * @param {AbortSignal} signal
   */
  on(kind, listener, signal) {
    this.addEventListener(kind, (event) => listener(/** @type {CustomEvent} */ (event).detail), { signal });
  }
}

export const live = new Live();
