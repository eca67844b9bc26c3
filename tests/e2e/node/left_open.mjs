/**
 * The program in JavaScript of the end-to-end tests of resource policies (tests/e2e/tests/policies.rs). It does what
 * crates/tubthumping-app/examples/left_open.rs does; its server and its connection are Node's, and nobody listens to their
 * errors: there must be none.
 */
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterRestore, beforeCheckpoint, checkpoint } from 'tubthumping';

const say = (text) => fs.writeSync(1, `${text}\n`);
const at = (name) => path.join(process.argv[2], name);

/** What comes of asking: text, or why not. */
function found(ask) {
  try {
    return ask();
  } catch (error) {
    return error.code;
  }
}

function some(fd, count) {
  const bytes = Buffer.alloc(count);
  return bytes.toString('utf8', 0, fs.readSync(fd, bytes, 0, count, null));
}

beforeCheckpoint(() => say('before'));
afterRestore(() => say('after'));

for (const name of ['input.txt', 'closed.txt']) fs.writeFileSync(at(name), '0123456789');
const input = fs.openSync(at('input.txt'));
some(input, 3);
const closed = fs.openSync(at('closed.txt'));
const log = fs.openSync(at('app.log'), 'a');
fs.writeSync(log, 'before\n');
const data = fs.openSync(at('data.bin'), 'w+');
fs.writeSync(data, '01234567');
const server = net.createServer((socket) => socket.resume());
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const { port } = server.address();

const connect = () =>
  new Promise((resolve, reject) => {
    const socket = net.connect(port, '127.0.0.1', () => resolve(socket));
    socket.once('error', reject);
  });
const client = await connect();
client.removeAllListeners('error');
client.resume();
const ended = new Promise((resolve) => client.once('close', resolve));

async function look() {
  say(`log ${found(() => (fs.writeSync(log, 'after\n') ? 'ok' : ''))}`);
  // Node has no lseek: what is read next tells.
  say(`data ${found(() => (fs.readSync(data, Buffer.alloc(1)) === 0 ? fs.fstatSync(data).size : 'elsewhere'))}`);
  const other = await connect().catch(() => undefined);
  other?.destroy();
  say(`server ${other !== undefined}`);
  say(`client ${await Promise.race([ended.then(() => true), sleep(10_000, false)])}`);
}

const go = at('go');
let seen = 0;
say('ready');
for (;;) {
  await sleep(10);
  const there = fs.statSync(go, { throwIfNoEntry: false })?.ino ?? seen;
  if (there === seen) continue;
  seen = there;
  const order = fs.readFileSync(go, 'utf8');
  const [word] = order.split(' ');
  if (word === 'checkpoint') {
    try {
      await checkpoint();
      say('checkpoint');
    } catch (error) {
      for (const { type, message } of error.failures) say(`${error.name} ${type}: ${message}`);
    }
  } else if (word === 'peek' || word === 'look') {
    say(`input ${found(() => some(input, word === 'peek' ? 1 : 100))}`);
    say(`closed ${found(() => some(closed, 1))}`);
    if (word === 'look') await look();
  } else if (word === 'end') {
    process.exit(0);
  }
  say(`did ${order}`);
}
