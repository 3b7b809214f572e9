"""The official OpenAI client against a running gateway. Arguments: base URL, chat model, embedding model."""

import sys

from openai import BadRequestError, NotFoundError, OpenAI

base_url, chat_model, embed_model = sys.argv[1:4]
client = OpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=60)

names = {m.id for m in client.models.list()}
assert names == {chat_model, embed_model}, names

question = [
    {"role": "system", "content": "answer in plain words"},
    {"role": "user", "content": "who can see the prompt ?"},
]
whole = client.chat.completions.create(
    model=chat_model, messages=question, max_tokens=24, temperature=0
)
text = whole.choices[0].message.content
assert text and whole.choices[0].finish_reason in ("stop", "length"), whole
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens

pieces, usage, finish = [], None, None
for event in client.chat.completions.create(
    model=chat_model,
    messages=question,
    max_tokens=24,
    temperature=0,
    stream=True,
    stream_options={"include_usage": True},
):
    if event.choices:
        pieces.append(event.choices[0].delta.content or "")
        finish = event.choices[0].finish_reason or finish
    usage = event.usage or usage
assert "".join(pieces) == text, (pieces, text)
assert usage == whole.usage and finish == whole.choices[0].finish_reason

seeded = [
    client.chat.completions.create(
        model=chat_model, messages=question, max_tokens=16, temperature=1.0, seed=11
    )
    .choices[0]
    .message.content
    for _ in range(2)
]
assert seeded[0] == seeded[1]

# The client asks for base64 by itself and decodes it.
vectors = client.embeddings.create(
    model=embed_model, input=["A man is eating food.", "Someone eats a meal."]
)
a, b = (item.embedding for item in vectors.data)
assert [item.index for item in vectors.data] == [0, 1]
floats = client.embeddings.create(
    model=embed_model, input="A man is eating food.", encoding_format="float"
)
assert max(abs(x - y) for x, y in zip(a, floats.data[0].embedding)) < 1e-5
assert vectors.usage.prompt_tokens > 0

for wrong, error in [
    (lambda: client.chat.completions.create(model="nobody", messages=question), NotFoundError),
    (lambda: client.chat.completions.create(model=chat_model, messages=question, n=9), BadRequestError),
    (lambda: client.chat.completions.create(model=chat_model, messages=[]), BadRequestError),
    (lambda: client.embeddings.create(model=chat_model, input="a"), BadRequestError),
]:
    try:
        wrong()
    except error as refused:
        assert refused.body["message"], refused
    else:
        raise AssertionError("accepted")

print(f"cosine {sum(x * y for x, y in zip(a, b)):.4f}")
