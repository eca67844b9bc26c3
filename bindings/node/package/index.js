/**
 * Taking part in checkpoints: what a program is told before and after (docs/node.md).
 *
 * In: hooks. Out: calls of them, on the event loop, one at a time. Importing it opens the control socket by which
 * `tub checkpoint` finds the program. Not here: order and deadlines (the addon).
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import crypto from 'node:crypto';
import { createRequire } from 'node:module';

const addon = createRequire(import.meta.url)('./tubthumping.node');

const hooks = new Map();
const tickets = new Map();
let lastTicket = 0;

/** Keeps Node alive while something is under way that only we know of. */
let busy = 0;
let alive;
function begin() {
  if (busy++ === 0) alive = setInterval(() => {}, 2 ** 30);
}
function end() {
  if (--busy === 0) clearInterval(alive);
}

class TubthumpingError extends Error {
  constructor(failures) {
    super(failures.map(({ type, message, resource }) => `${resource ? `${resource}: ` : ''}${type}: ${message}`).join('; '));
    this.name = this.constructor.name;
    this.failures = failures;
  }
}

export class CheckpointException extends TubthumpingError {}
export class RestoreException extends TubthumpingError {}

function outcomeOf(given) {
  return given?.seed ? { ...given, seed: Uint8Array.from(given.seed) } : given;
}

function failureOf(error) {
  const name = error?.constructor?.name ?? typeof error;
  return [name, String(error?.message ?? error)];
}

/** In which hook the code runs that asks; what a hook leaves behind (a server) runs in it for ever, so it notes its end. */
const inside = new AsyncLocalStorage();

/** From a before-hook up to the end of its after-hook, which is sure to be called, Node must not find nothing left to do. */
async function run({ call, hook, phase, outcome }) {
  if (phase === 'before') begin();
  const failures = [];
  const place = { runs: true };
  try {
    const resource = hooks.get(hook);
    await inside.run(place, () =>
      phase === 'before' ? resource?.beforeCheckpoint?.() : resource?.afterRestore?.(outcomeOf(outcome)),
    );
  } catch (error) {
    failures.push(...failureOf(error));
  }
  place.runs = false;
  addon.done(call, failures);
  if (phase === 'after') end();
}

function settle({ ticket, outcome, hasImage, failures }) {
  const { resolve, reject } = tickets.get(ticket);
  tickets.delete(ticket);
  end();
  if (failures) reject(new (hasImage ? RestoreException : CheckpointException)(failures));
  else resolve(outcomeOf(outcome));
}

export function register(resource, name = resource.constructor?.name ?? 'resource') {
  const hook = addon.register(name);
  hooks.set(hook, resource);
  return () => addon.unregister(hook);
}

export function beforeCheckpoint(hook, name = hook.name || 'beforeCheckpoint') {
  return register({ beforeCheckpoint: hook }, name);
}

export function afterRestore(hook, name = hook.name || 'afterRestore') {
  return register({ afterRestore: hook }, name);
}

export function checkpoint() {
  if (inside.getStore()?.runs) {
    // It would wait for itself.
    const failure = { type: 'IllegalStateException', message: 'Recursive checkpoint is not allowed', resource: null };
    return Promise.reject(new CheckpointException([failure]));
  }
  const ticket = (lastTicket = (lastTicket + 1) >>> 0);
  return new Promise((resolve, reject) => {
    tickets.set(ticket, { resolve, reject });
    begin();
    addon.checkpoint(ticket);
  });
}

/** V8 gives no way to seed Math.random again: in a copy it is another generator (xoshiro128**, 53 bits of two draws). */
function seedMathRandom(seed) {
  const derived = crypto.createHash('sha256').update('Math.random').update(seed).digest();
  const words = Uint32Array.from([0, 4, 8, 12], (at) => derived.readUInt32LE(at));
  const rotl = (word, by) => (word << by) | (word >>> (32 - by));
  const next = () => {
    const result = Math.imul(rotl(Math.imul(words[1], 5), 7), 9) >>> 0;
    const t = words[1] << 9;
    words[2] ^= words[0];
    words[3] ^= words[1];
    words[1] ^= words[2];
    words[0] ^= words[3];
    words[2] ^= t;
    words[3] = rotl(words[3], 11);
    return result;
  };
  Math.random = { random: () => ((next() >>> 5) * 67108864 + (next() >>> 6)) / 9007199254740992 }.random;
}

function reseed(seed) {
  addon.mixIn(crypto.createHash('sha256').update('crypto').update(seed).digest());
  // NODE(since 14.17): randomUUID draws 128 at a time and keeps them.
  for (let drawn = 0; drawn < 128; drawn++) crypto.randomUUID();
  seedMathRandom(seed);
}

const failed = addon.start(`Node.js ${process.version}`, (text) => {
  const message = JSON.parse(text);
  if (message.released !== undefined) hooks.delete(message.released);
  else if (message.call !== undefined) run(message);
  else settle(message);
});
if (failed) process.emitWarning(failed, 'TubthumpingWarning');

// First of all, so that every hook draws numbers of its own and sees the new environment.
afterRestore(({ state, environment, seed }) => {
  if (state !== 'restored') return;
  Object.assign(process.env, environment);
  reseed(seed);
}, 'environment and random');
