"""An asyncio service under uvicorn that takes part in its checkpoints: a server of uvicorn's ends before the image is
taken, and another one starts afterwards, in the original and in every copy. The process, its event loop and whatever
it has loaded and computed go on.

    pip install uvicorn tubthumping-*.whl
    PORT=8080 tub run --image app.image -- python3 service.py
    tub checkpoint PID --image app.image
    tub restore app.image --env PORT=8081
"""

import asyncio
import os
import random

import uvicorn
from tubthumping import after_restore, before_checkpoint

life, served = "original", 0


async def app(scope, receive, send):
    global served
    if scope["type"] == "lifespan":
        # What frameworks make their start and their end of: connections to databases belong here.
        while True:
            event = (await receive())["type"]
            print(event, flush=True)
            await send({"type": event + ".complete"})
            if event == "lifespan.shutdown":
                return
    served += 1
    body = f"{life} {served} {random.random()}\n".encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


async def main():
    server = task = None

    async def start():
        nonlocal server, task
        port = int(os.environ.get("PORT", "8080"))
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        print("port", server.servers[0].sockets[0].getsockname()[1], flush=True)

    @before_checkpoint
    async def stop():
        # It answers what was asked, closes idle connections, and ends the application's lifespan.
        server.should_exit = True
        await task

    @after_restore
    async def start_again(outcome):
        global life
        life = outcome.state
        await start()

    await start()
    await asyncio.Event().wait()


asyncio.run(main())
