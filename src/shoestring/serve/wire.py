"""Requests in OpenAI's forms. What is not offered is refused by name, unless it asks for nothing.

Official clients send every field that they know: null, false, empty, or its neutral value. Such a field is taken, whether it
is known here or not. Names for a caller's own bookkeeping (`user`, cache and safety identifiers) are taken and kept nowhere.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from shoestring.infer import Sampling

Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Stop = Annotated[str, Field(min_length=1, max_length=500)]


NEUTRAL: dict[str, tuple[Any, ...]] = {
    "function_call": ("none", "auto"),
    "logprobs": (False,),
    "min_p": (0,),
    "modalities": (["text"],),
    "parallel_tool_calls": (True,),
    "reasoning_effort": ("none",),
    "repetition_penalty": (1,),
    "service_tier": ("auto", "default"),
    "tool_choice": ("none", "auto"),
}
"""Values of fields that are not offered with which they ask for what happens anyway."""


def _nothing(value: Any) -> Any:
    if value:
        raise ValueError("is not offered by this server; leave it out")
    return value


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, given: Any) -> Any:
        """The fields that ask for something."""
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if not cls._asks_nothing(name, value)}

    @classmethod
    def _asks_nothing(cls, name: str, value: Any) -> bool:
        known = cls.model_fields.get(name)
        if known is not None and known.is_required():
            return False
        if value is None or (isinstance(value, str | list | dict) and not value):
            return True
        neutral = NEUTRAL.get(name, ())
        return (known is None and value is False) or any(value == each and type(value) is type(each) for each in neutral)


class StreamOptions(_Form):
    """What to add to a stream."""

    include_usage: bool = False
    """One more event before the end, with the token counts."""


class Request(_Form):
    """What both kinds of request share."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Not in OpenAI's interface; vLLM and llama.cpp have it too."""
    seed: Seed | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    n: Literal[1] | None = None
    presence_penalty: Annotated[float, AfterValidator(_nothing)] | None = None
    frequency_penalty: Annotated[float, AfterValidator(_nothing)] | None = None
    logit_bias: Annotated[dict[str, float], AfterValidator(_nothing)] | None = None
    user: str | None = None
    """Who asks; taken for compatibility, kept nowhere."""
    safety_identifier: str | None = None
    """The newer name of `user`."""
    prompt_cache_key: str | None = None
    """How the caller groups its requests; taken for compatibility, kept nowhere."""

    @property
    def limit(self) -> int | None:
        """Tokens that the answer may have; None when the request leaves it open."""
        return self.max_tokens

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def usage_wanted(self) -> bool:
        """True when a stream should end with token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, max_tokens: int) -> Sampling:
        """How the answer is drawn; OpenAI's default is temperature 1."""
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k or 0,
            seed=self.seed,
            max_tokens=max_tokens,
        )


def _one_prompt(value: Any) -> Any:
    """The prompt of a list that holds one, as clients send that can also send several."""
    if isinstance(value, list) and value and isinstance(value[0], str | list):
        if len(value) > 1:
            raise ValueError(f"{len(value)} prompts in one request are not offered by this server; send one")
        return value[0]
    return value


class Completion(Request):
    """`/v1/completions`."""

    prompt: Annotated[str | list[Annotated[int, Field(ge=0)]], BeforeValidator(_one_prompt)]
    """A text or token numbers, or a list that holds one of these."""
    echo: Annotated[bool, AfterValidator(_nothing)] | None = None
    suffix: Annotated[str, AfterValidator(_nothing)] | None = None
    best_of: Literal[1] | None = None


class TextPart(_Form):
    """A piece of a message; only text is understood."""

    type: Literal["text"]
    text: str


class Message(_Form):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    """Who speaks; taken for compatibility, not shown to the model."""

    def plain(self) -> dict[str, str]:
        """As a chat template reads it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class Chat(Request):
    """`/v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(gt=0)] | None = None
    """The newer name of `max_tokens`; it counts when both are given."""
    top_logprobs: Annotated[int, AfterValidator(_nothing)] | None = None
    response_format: ResponseFormat | None = None

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class ResponseFormat(_Form):
    """Only plain text is offered."""

    type: Literal["text"]


class Problem(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    """The field of the request that is to blame."""
    code: str | None = None


class Refusal(BaseModel):
    """An error in OpenAI's form."""

    error: Problem
