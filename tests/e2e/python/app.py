"""An application that uvicorn starts, which keeps its own listener: three resources in the forms that Python has.

In: requests. Out: which life it is and how many were served; hooks on stdout, as they are called.
"""

from tubthumping import Resource, after_restore, before_checkpoint, register

life, served = "original", 0


@before_checkpoint
def first():
    print("before first", flush=True)


class Pool(Resource):
    def before_checkpoint(self):
        print("before pool", flush=True)

    async def after_restore(self, outcome):
        print("after pool", outcome.state, flush=True)


register(Pool())


@before_checkpoint
async def last():
    print("before last", flush=True)


@after_restore
async def told(outcome):
    global life
    life = outcome.state
    print("after told", outcome.state, flush=True)


async def app(scope, receive, send):
    global served
    assert scope["type"] == "http"
    served += 1
    body = f"{life} {served}".encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})
