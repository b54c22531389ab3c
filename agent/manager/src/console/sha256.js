// SHA-256 and HMAC-SHA-256 (FIPS 180-4, RFC 2104). Browsers offer theirs on secure origins only, and a manager on a network
// address speaks plain HTTP. Only short texts pass here: what is signed of a call.

const firstBits = (power) => {
  const found = [];
  for (let candidate = 2; found.length < 64; candidate += 1) {
    let prime = true;
    for (let by = 2; by * by <= candidate && prime; by += 1) prime = candidate % by !== 0;
    if (prime) {
      const root = candidate ** power;
      found.push(((root - Math.floor(root)) * 2 ** 32) | 0);
    }
  }
  return found;
};
// The fractional parts of the roots of the first primes, as the standard defines the constants.
const START = firstBits(1 / 2).slice(0, 8);
const ROUND = firstBits(1 / 3);

const turn = (word, by) => (word >>> by) | (word << (32 - by));

/** The digest of bytes, 32 bytes. */
export const sha256 = (bytes) => {
  const blocks = Math.ceil((bytes.length + 9) / 64);
  const padded = new Uint8Array(blocks * 64);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor((bytes.length * 8) / 2 ** 32));
  view.setUint32(padded.length - 4, (bytes.length * 8) >>> 0);
  const state = START.slice();
  const w = new Int32Array(64);
  for (let at = 0; at < padded.length; at += 64) {
    for (let i = 0; i < 16; i += 1) w[i] = view.getInt32(at + i * 4);
    for (let i = 16; i < 64; i += 1) {
      const [a, b] = [w[i - 15], w[i - 2]];
      const low = turn(a, 7) ^ turn(a, 18) ^ (a >>> 3);
      const high = turn(b, 17) ^ turn(b, 19) ^ (b >>> 10);
      w[i] = (w[i - 16] + low + w[i - 7] + high) | 0;
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i += 1) {
      const choice = (e & f) ^ (~e & g);
      const majority = (a & b) ^ (a & c) ^ (b & c);
      const one = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + choice + ROUND[i] + w[i]) | 0;
      const two = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + majority) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((word, i) => { state[i] = (state[i] + word) | 0; });
  }
  const digest = new DataView(new ArrayBuffer(32));
  state.forEach((word, i) => digest.setInt32(i * 4, word));
  return new Uint8Array(digest.buffer);
};

/** HMAC of bytes under a key of bytes, 32 bytes. */
export const hmac = (key, bytes) => {
  const block = new Uint8Array(64);
  block.set(key.length > 64 ? sha256(key) : key);
  const under = (pad, rest) => {
    const all = new Uint8Array(64 + rest.length);
    all.set(block.map((byte) => byte ^ pad));
    all.set(rest, 64);
    return sha256(all);
  };
  return under(0x5c, under(0x36, bytes));
};

/** Lower case hexadecimal. */
export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
