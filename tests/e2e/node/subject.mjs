/**
 * The program in JavaScript of the end-to-end tests (tests/e2e/tests/languages.rs): three resources, and orders from a
 * file. It does what crates/tubthumping-app/examples/subject.rs does.
 */
import assert from 'node:assert';
import crypto from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterRestore, checkpoint, register } from 'tubthumping';

const say = (text) => fs.writeSync(1, `${text}\n`);

class Tired extends Error {}

function shown(outcome) {
  if (outcome.state === 'failed') return 'failed';
  if (outcome.state === 'resumed') return `resumed ${outcome.generation}`;
  const color = outcome.environment.COLOR ?? '';
  if (color) assert.equal(process.env.COLOR, color);
  return `restored ${outcome.generation} [${color}] [${outcome.arguments.join(',')}]`;
}

class Noted {
  constructor(name) {
    this.name = name;
  }

  async beforeCheckpoint() {
    say(`before ${this.name}`);
    if (this.name === 'bad' || this.name === 'worse') throw new Tired(`${this.name} is tired`);
    if (this.name === 'slow') await sleep(3000);
  }

  async afterRestore(outcome) {
    await assert.rejects(checkpoint(), { name: 'CheckpointException', message: /Recursive/ });
    say(`after ${this.name} ${shown(outcome)}`);
  }
}

// What has been drawn ahead before the checkpoint would be the same in all copies.
crypto.randomUUID();
Math.random();

const registered = new Map();
const add = (name) => registered.set(name, register(new Noted(name), name));
['one', 'two', 'three'].forEach(add);
afterRestore((outcome) => {
  if (outcome.state !== 'restored') return;
  const drawn = [Math.random(), crypto.randomUUID(), crypto.randomBytes(4).toString('hex')];
  say(`random ${drawn.join(' ')}`);
});

const opened = [];
async function carryOut(order) {
  const [word, rest] = order.split(/ (.*)/s);
  if (word === 'open') {
    const fd = fs.openSync(rest);
    opened.push(() => fs.closeSync(fd));
  } else if (word === 'listen') {
    const server = net.createServer();
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    opened.push(() => new Promise((resolve) => server.close(resolve)));
  } else if (word === 'close') {
    while (opened.length) await opened.pop()();
  } else if (word === 'register') {
    add(rest);
  } else if (word === 'unregister') {
    assert(registered.get(rest)());
  } else if (word === 'end') {
    process.exit(0);
  } else if (word === 'checkpoint') {
    try {
      say(`checkpoint ${shown(await checkpoint())}`);
    } catch (error) {
      for (const { type, message, resource } of error.failures) {
        say(`${error.name} ${resource ? `${resource}: ` : ''}${type}: ${message}`);
      }
    }
  }
  say(`did ${order}`);
}

const go = path.join(process.argv[2], 'go');
let seen = 0;
say('ready');
for (;;) {
  await sleep(10);
  const found = fs.statSync(go, { throwIfNoEntry: false })?.ino ?? seen;
  if (found === seen) continue;
  seen = found;
  await carryOut(fs.readFileSync(go, 'utf8'));
}
