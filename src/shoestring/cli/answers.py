"""Commands that let a model answer: generate, chat, serve."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from shoestring.cli.options import MOST, Json, Model, say


def generate(
    model: Model,
    prompt: Annotated[str, typer.Option("--prompt", help="What the text starts with.")],
    max_tokens: Annotated[int, typer.Option(min=1, max=MOST)] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="0 always takes the likeliest token.")] = 0.8,
    top_p: Annotated[float, typer.Option(help="Share of the probability that can be drawn.")] = 0.95,
    seed: Annotated[int, typer.Option()] = 0,
    json: Json = False,
) -> None:
    """Continue a text."""
    from shoestring import infer
    from shoestring import model as models
    from shoestring.tokenizer import TextStream

    sampling = _sampling(max_tokens, temperature, top_p, seed)
    loaded, tokenizer = models.load(model)
    tokens, ends = tokenizer.prompt(prompt), infer.stop_tokens(tokenizer)
    stream = TextStream(tokenizer, tokens)

    def show(row: int, token: int) -> None:
        if token not in ends:
            print(stream.push(token), end="", flush=True)

    if not json:
        print(prompt, end="", flush=True)
    [answer] = infer.generate(loaded, [tokens], sampling, stop=ends, on_token=None if json else show)
    if json:
        say(True, {"model": model, "prompt": prompt, "text": tokenizer.answer(tokens, answer), "tokens": len(answer)}, "")
    else:
        print(stream.flush())


def chat(
    model: Model,
    system: Annotated[str, typer.Option(help="What the model is told first.")] = "",
    max_tokens: Annotated[int, typer.Option(min=1, max=MOST)] = 256,
    temperature: Annotated[float, typer.Option(min=0)] = 0.7,
    top_p: Annotated[float, typer.Option()] = 0.95,
    seed: Annotated[int, typer.Option()] = 0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per answer.")] = False,
) -> None:
    """Talk with a model: one line a question. Ctrl-C stops an answer, Ctrl-D ends."""
    from shoestring import model as models
    from shoestring.cli.chat import Chat, converse

    sampling = _sampling(max_tokens, temperature, top_p, seed)
    loaded, tokenizer = models.load(model)
    tokenizer.check_chat()
    converse(Chat(loaded, tokenizer, system, sampling), json)


def serve(
    context: typer.Context,
    model: Model,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    name: Annotated[str | None, typer.Option(help="The model's name for clients; its own when not given.")] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="SHOESTRING_API_KEY", help="What clients must send as a bearer token.")
    ] = None,
    hosts: Annotated[list[str] | None, typer.Option(help="A further name clients may use; repeat for more; * is any.")] = None,
    slots: Annotated[int, typer.Option(min=1, help="Answers made together at the most.")] = 8,
    waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait for a slot.")] = 32,
    max_tokens: Annotated[int, typer.Option(min=1, help="Length of an answer when a request gives none.")] = 512,
    request_bytes: Annotated[int, typer.Option(min=1, help="The largest request body.")] = 1_000_000,
    connections: Annotated[int, typer.Option(min=1, help="Open connections at the most.")] = 512,
    head_seconds: Annotated[float, typer.Option(help="How long the head of a request may take to arrive.")] = 10.0,
    body_seconds: Annotated[float, typer.Option(help="How long a request's body may take to arrive.")] = 30.0,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that answers at hand get when told to stop.")] = 10.0,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; chosen when not given.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Say where it listens as one JSON object.")] = False,
) -> None:
    """Serve a model in OpenAI's form, with a chat page at / and metrics at /metrics."""
    from shoestring import serve as room

    def ready(url: str, name: str) -> None:
        say(json, {"url": url, "model": name}, url)

    given = {key: value for key, value in context.params.items() if key in room.Settings.model_fields}
    room.serve(model, host=host, port=port, name=name, ready=ready, **given)


def _sampling(max_tokens: int, temperature: float, top_p: float, seed: int) -> Any:
    from shoestring.infer import Sampling
    from shoestring.technique import configure

    settings = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
    return configure(Sampling, settings, "sampling")
