/**
 * What this browser can do, and what to say where it cannot.
 * @module
 */

/**
 * @returns {{microphone: boolean, sound: boolean, hints: string[]}} `hints` are keys of the strings
 */
export function support() {
  const secure = globalThis.isSecureContext;
  const codecs = typeof AudioDecoder === 'function' && typeof AudioEncoder === 'function';
  const media = Boolean(navigator.mediaDevices?.getUserMedia);
  const hints = [];
  if (!secure) hints.push('talk.insecure');
  else {
    if (!codecs) hints.push('talk.no_codecs');
    if (!media) hints.push('talk.no_media');
  }
  return { microphone: secure && codecs && media, sound: codecs, hints };
}
