// Calls of the manager's admin API. The token itself never leaves this page: each call carries an HMAC of itself, as the command
// line's calls to other machines do, so the same page works on loopback and elsewhere.

import { hex, hmac, sha256 } from "./sha256.js";

const KEPT = "dkv-token";
const NO_BODY = hex(sha256(new Uint8Array()));
const bytes = (text) => new TextEncoder().encode(text);

// How far the manager's clock is ahead of this one, as its answers say: a signature is good for a minute of the manager's.
let aheadMs = 0;

/** The manager refused: its words, and what it says to do next. */
export class Refused extends Error {
  constructor(status, { code = "", message = "", hint = "" } = {}) {
    super(message || `the manager answered with status ${status}`);
    Object.assign(this, { status, code, hint });
  }
}

/** There was no answer, or none of a manager. */
export class Away extends Error {}

/** How far the manager's clock is ahead, in milliseconds. */
export const ahead = () => aheadMs;

// The token lives as long as this tab, and only in it.
export const token = () => sessionStorage.getItem(KEPT);
export const keepToken = (text) => sessionStorage.setItem(KEPT, text);
export const forgetToken = () => sessionStorage.removeItem(KEPT);

const authorization = (method, target, secret) => {
  const time = Math.floor((Date.now() + aheadMs) / 1000);
  const nonce = hex(crypto.getRandomValues(new Uint8Array(16)));
  const text = ["dkv admin 1", method, location.host, target, NO_BODY, nonce, time].join("\n");
  return `DKV-HMAC-SHA256 time=${time},nonce=${nonce},signature=${hex(hmac(bytes(secret), bytes(text)))}`;
};

const once = async (method, target, secret, mostMs) => {
  const headers = { Authorization: authorization(method, target, secret) };
  const options = { method, headers, cache: "no-store", credentials: "omit", redirect: "error" };
  try {
    const answer = await fetch(target, { ...options, signal: AbortSignal.timeout(mostMs) });
    const document = await answer.json().catch(() => undefined);
    return { answer, document };
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new Away(late ? `no answer within ${Math.round(mostMs / 1000)} s` : "no connection");
  }
};

/** The document that a call answers. Throws Refused or Away. */
export const call = async (method, target, { secret = token(), mostMs = 10_000 } = {}) => {
  let { answer, document } = await once(method, target, secret ?? "", mostMs);
  const said = Date.parse(answer.headers.get("date") ?? "");
  const before = aheadMs;
  if (!Number.isNaN(said)) aheadMs = said - Date.now();
  // Signed by a clock that is far off: now it is known by how much.
  if (answer.status === 401 && Math.abs(aheadMs - before) > 30_000) {
    ({ answer, document } = await once(method, target, secret ?? "", mostMs));
  }
  if (answer.ok && document !== undefined) return document;
  if (answer.ok) throw new Away("what answered is not a manager");
  throw new Refused(answer.status, document?.error);
};

export const get = (target, options) => call("GET", target, options);
export const post = (target, options) => call("POST", target, options);

/** The path of a store's call; a name cannot leave its part of it. */
export const storePath = (name, what) => `/admin/v1/stores/${encodeURIComponent(name)}/${what}`;
