/**
 * Requests to the server. Every failure is an `ApiError` whose message can be shown as it is.
 * @module
 */
import { said, t } from './i18n.js';

const BASE = './api/';
const LONGEST_MS = 60_000;

/** What went wrong, in words for people. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status HTTP status; 0 where there was no answer
   * @param {string[]} errors several messages, such as one for each wrong setting
   */
  constructor(message, status = 0, errors = []) {
    super(message);
    this.status = status;
    this.errors = errors;
  }
}

let csrf = '';
/** @type {() => void} */
let onSignedOut = () => {};

/** @param {string | null} token from sign-in or session */
export function setCsrf(token) {
  csrf = token ?? '';
}

/** @param {() => void} listener called when the server no longer knows the session */
export function whenSignedOut(listener) {
  onSignedOut = listener;
}

/**
 * Ask the server.
 *
 * @param {string} path below `/console/api/`
 * @param {{method?: string, body?: unknown, signal?: AbortSignal}} [options]
 * @returns {Promise<any>} the answer's JSON; null where it is empty
 */
export async function api(path, { method = 'GET', body, signal } = {}) {
  /** @type {Record<string, string>} */
  const headers = { Accept: 'application/json' };
  if (method !== 'GET') headers['X-CSRF'] = csrf;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  const limit = AbortSignal.timeout(LONGEST_MS);
  let response;
  try {
    response = await fetch(BASE + path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: 'same-origin',
      cache: 'no-store',
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(t('error.unreachable'));
  }
  const text = await response.text();
  const answer = text ? parse(text) : null;
  if (response.ok) return answer;
  if (response.status === 401 && path !== 'sign-in' && path !== 'password') onSignedOut();
  const errors = Array.isArray(answer?.errors) ? answer.errors.map((/** @type {any} */ each) => said(String(each))) : [];
  const wait = Number(response.headers.get('Retry-After'));
  if (response.status === 429 && wait) throw new ApiError(t('error.wait', { seconds: wait }), 429);
  throw new ApiError(errors.join('\n') || (answer?.error ? said(String(answer.error)) : t('error.status', { status: response.status })), response.status, errors);
}

/** @param {string} text */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return { error: text.slice(0, 300) };
  }
}

/**
 * A list, whether the server wraps it or not.
 * @param {any} answer
 * @param {string} name
 * @returns {any[]}
 */
export function listOf(answer, name) {
  return Array.isArray(answer) ? answer : (answer?.[name] ?? []);
}
