/**
 * A plain http service that takes part in its checkpoints: it stops listening before the image is taken, and listens
 * again afterwards, in the original and in every copy.
 *
 *     PORT=8080 tub run --image app.image -- node service.mjs
 *     tub checkpoint PID --image app.image
 *     tub restore app.image --env PORT=8081
 */
import http from 'node:http';
import { afterRestore, beforeCheckpoint } from 'tubthumping';

let life = 'original';
let served = 0;
const server = http.createServer((_request, response) => {
  served += 1;
  response.end(`${life} ${served} ${Math.random()}\n`);
});

function listen() {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(Number(process.env.PORT ?? 8080), '127.0.0.1', () => {
      server.off('error', reject);
      console.log(`port ${server.address().port}`);
      resolve();
    });
  });
}

beforeCheckpoint(function stopListening() {
  const closed = new Promise((resolve) => server.close(resolve));
  server.closeAllConnections();
  return closed;
});

afterRestore(function listenAgain(outcome) {
  life = outcome.state;
  return listen();
});

await listen();
