"""A plain asyncio service that takes part in its checkpoints: it stops listening before the image is taken, and listens
again afterwards, in the original and in every copy.

    PORT=8080 tub run --image app.image -- python3 service.py
    tub checkpoint PID --image app.image
    tub restore app.image --env PORT=8081
"""

import asyncio
import os
import random

from tubthumping import after_restore, before_checkpoint

life, served, server = "original", 0, None


async def answer(reader, writer):
    global served
    await reader.readuntil(b"\r\n\r\n")
    served += 1
    body = f"{life} {served} {random.random()}\n"
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write((head + body).encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def listen():
    global server
    server = await asyncio.start_server(answer, "127.0.0.1", int(os.environ.get("PORT", "8080")))
    print("port", server.sockets[0].getsockname()[1], flush=True)


async def main():
    @before_checkpoint
    async def stop_listening():
        server.close()
        await server.wait_closed()

    @after_restore
    async def listen_again(outcome):
        global life
        life = outcome.state
        await listen()

    await listen()
    await asyncio.Event().wait()


asyncio.run(main())
