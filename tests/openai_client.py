"""The official client of OpenAI's protocol against `infalign serve`: `python tests/openai_client.py http://HOST:PORT KEY`.

The server has to know the key and a reward. Written for openai 3.57; what it calls is as old as openai 1."""

import asyncio
import sys

import openai

url, key = sys.argv[1:]
client = openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=0)
messages = [{"role": "user", "content": "the soup"}]

[model] = [model.id for model in client.models.list()]
assert client.models.retrieve(model).id == model

whole = client.completions.create(model=model, prompt="the soup", seed=1, max_tokens=20, n=2, logprobs=2, stop=["zzz"])
assert [choice.index for choice in whole.choices] == [0, 1]
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
assert len(whole.choices[0].logprobs.tokens) == len(whole.choices[0].logprobs.token_logprobs)
assert all(len(top) >= 2 for top in whole.choices[0].logprobs.top_logprobs)
parts = client.completions.create(model=model, prompt="the soup", seed=1, max_tokens=20, n=2, stream=True)
texts = ["", ""]
for part in parts:
    for choice in part.choices:
        texts[choice.index] += choice.text
assert texts == [choice.text for choice in whole.choices], (texts, whole)

chat = client.chat.completions.create(
    model=model, messages=messages, seed=2, max_completion_tokens=12, temperature=0.8, top_p=0.95, logprobs=True, top_logprobs=1
)
answer = chat.choices[0].message.content
assert chat.choices[0].message.role == "assistant" and chat.choices[0].finish_reason in ("stop", "length")
assert len(chat.choices[0].logprobs.content[0].top_logprobs) == 1
stream = client.chat.completions.create(
    model=model, messages=messages, seed=2, max_completion_tokens=12, temperature=0.8, top_p=0.95,
    stream=True, stream_options={"include_usage": True},
)
text, usage = "", None
for part in stream:
    usage = part.usage or usage
    text += "".join(choice.delta.content or "" for choice in part.choices)
assert text == answer, (text, answer)
assert usage.completion_tokens == chat.usage.completion_tokens

best = client.completions.create(
    model=model, prompt="the soup", seed=3, max_tokens=20, extra_body={"procedure": "best-of:4", "top_k": 20}
)
assert best.choices[0].scorer_calls == 4 and best.procedure == "best-of:4" and best.seed == 3

try:
    client.completions.create(model=model, prompt="the soup", extra_body={"no_such_field": 1})
    raise AssertionError("it was taken")
except openai.BadRequestError as error:
    assert "no_such_field" in error.message and error.param == "no_such_field", error
for wrong, expected in [
    (dict(model="other"), openai.NotFoundError),
    (dict(model=model, max_tokens=10**9), openai.BadRequestError),
]:
    try:
        client.completions.create(**({"prompt": "the soup"} | wrong))
        raise AssertionError("it was taken")
    except expected:
        pass
try:
    openai.OpenAI(base_url=url + "/v1", api_key="guess", max_retries=0).models.list()
    raise AssertionError("it was let in")
except openai.AuthenticationError as error:
    assert error.code == "invalid_api_key", error


async def together():
    """Many at once, one of which goes away in the middle."""
    client = openai.AsyncOpenAI(base_url=url + "/v1", api_key=key, max_retries=0)

    async def one(seed):
        stream = await client.chat.completions.create(model=model, messages=messages, seed=seed, max_tokens=12, stream=True)
        text = ""
        async for part in stream:
            if seed == 7:
                await stream.close()
                break
            text += "".join(choice.delta.content or "" for choice in part.choices)
        return text

    texts = await asyncio.gather(*(one(seed) for seed in range(16)))
    alone = client.chat.completions.create(model=model, messages=messages, seed=3, max_tokens=12)
    assert texts[3] == (await alone).choices[0].message.content


asyncio.run(together())
print("all is well")
