"""What the official OpenAI client can ask of generation. Arguments: base URL, demo model, the same with a template for tools, chat model
whose vocabulary has no bytes, embedding model."""

import base64
import json
import struct
import sys
import urllib.request

from openai import BadRequestError, OpenAI

try:
    from jsonschema import validate
except ImportError:
    validate = None

base_url, demo, caller, words, embed = sys.argv[1:6]
client = OpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=60)
question = [
    {"role": "developer", "content": [{"type": "text", "text": "answer in "}, {"type": "text", "text": "plain words"}]},
    {"role": "user", "content": "What does the host see?"},
]


def chat(model=demo, **fields):
    fields = {"messages": question, "max_completion_tokens": 48, "temperature": 0} | fields
    return client.chat.completions.create(model=model, **fields)


def refused(param, call):
    try:
        call()
    except BadRequestError as error:
        assert error.body["param"] == param, (param, error.body)
        assert "secret" not in error.body["message"], error.body
    else:
        raise AssertionError(f"accepted {param}")


def streamed(model=demo, **fields):
    """Text, reason, calls and chances of each choice, and the counts."""
    choices, usage = {}, None
    for event in chat(model, stream=True, stream_options={"include_usage": True}, **fields):
        usage = event.usage or usage
        for part in event.choices:
            choice = choices.setdefault(part.index, {"text": "", "finish": None, "calls": [], "chances": []})
            assert choice["finish"] is None, "nothing follows the end of a choice"
            choice["text"] += part.delta.content or ""
            choice["finish"] = part.finish_reason
            choice["calls"] += part.delta.tool_calls or []
            if part.logprobs:
                choice["chances"] += part.logprobs.content
    return choices, usage


# Greedy: what does not ask for anything changes nothing.
greedy = chat()
text = greedy.choices[0].message.content
assert text and greedy.choices[0].finish_reason in ("stop", "length")
same = chat(
    top_p=0.5, presence_penalty=0, frequency_penalty=0, logit_bias={}, n=1, stop=None, logprobs=False,
    tool_choice="auto", response_format={"type": "text"}, extra_body={"top_k": 5, "min_p": 0.1, "repetition_penalty": 1},
)
assert same.choices[0].message.content == text

# Choices. The model is sure of what it was taught, so it is asked for what it was not.
several = dict(messages=[{"role": "user", "content": "{}"}], n=3, temperature=2, seed=7, top_p=0.999, extra_body={"top_k": 2000, "min_p": 0.000001})
three = chat(**several)
texts = [choice.message.content for choice in three.choices]
assert [choice.index for choice in three.choices] == [0, 1, 2] and len(set(texts)) > 1, texts
assert three.usage.prompt_tokens == chat(**(several | {"n": 1})).usage.prompt_tokens
assert three.usage.completion_tokens <= 3 * 48
parts, usage = streamed(**several)
assert [parts[index]["text"] for index in range(3)] == texts and usage == three.usage
assert [parts[index]["finish"] for index in range(3)] == [choice.finish_reason for choice in three.choices]

# How likely tokens were.
told = chat(logprobs=True, top_logprobs=4)
chances = told.choices[0].logprobs.content
assert told.choices[0].message.content == text
assert b"".join(bytes(chance.bytes) for chance in chances).decode() == text
for chance in chances:
    assert chance.logprob <= 0 and len(chance.top_logprobs) == 4
    assert chance.top_logprobs[0].logprob == chance.logprob, "greedy takes the likeliest"
    assert sorted((top.logprob for top in chance.top_logprobs), reverse=True) == [t.logprob for t in chance.top_logprobs]
parts, _ = streamed(logprobs=True, top_logprobs=4)
assert parts[0]["chances"] == chances and parts[0]["text"] == text
assert chat().choices[0].logprobs is None

# Stop strings, bias and penalties.
word = text.split()[2]
for stop in (word, ["never said", word]):
    stopped = chat(stop=stop)
    assert stopped.choices[0].message.content == text[: text.index(word)] and stopped.choices[0].finish_reason == "stop"
first = int(client.post("/tokenize", body={"model": demo, "prompt": text, "add_special_tokens": False}, cast_to=object)["tokens"][0])
assert chat(logit_bias={str(first): -100}).choices[0].message.content != text
free = dict(model=demo, prompt="moon and", max_tokens=30, temperature=0)
before = client.completions.create(**free).choices[0].text
for penalty in ({"frequency_penalty": 2}, {"presence_penalty": 2}, {"extra_body": {"repetition_penalty": 5}}):
    assert client.completions.create(**free, **penalty).choices[0].text != before, penalty
cut = chat(max_completion_tokens=2)
assert cut.choices[0].finish_reason == "length" and cut.usage.completion_tokens == 2

# JSON of a schema, from a model that was never taught any.
schema = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue"]},
        "sizes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 1, "maxItems": 4},
        "ok": {"type": "boolean"},
        "name": {"type": "string", "maxLength": 12},
    },
    "required": ["colour", "sizes", "ok", "name"],
    "additionalProperties": False,
}


def shaped(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def check(said):
    value = json.loads(said)
    if validate:
        validate(value, schema)
    assert value["colour"] in ("red", "green", "blue") and isinstance(value["ok"], bool)
    assert set(value) == set(schema["required"]) and 1 <= len(value["sizes"]) <= 4 and len(value["name"]) <= 12


for temperature in (0, 1):
    answer = chat(response_format=shaped(schema), max_completion_tokens=400, temperature=temperature, seed=5, n=2)
    for choice in answer.choices:
        assert choice.finish_reason == "stop", choice
        check(choice.message.content)
parts, _ = streamed(response_format=shaped(schema), max_completion_tokens=400)
assert parts[0]["finish"] == "stop"
check(parts[0]["text"])
anything = chat(response_format={"type": "json_object"}, max_completion_tokens=400, temperature=1, seed=1)
assert anything.choices[0].message.content.startswith("{")
if anything.choices[0].finish_reason == "stop":
    assert isinstance(json.loads(anything.choices[0].message.content), dict)
refused("response_format", lambda: chat(response_format=shaped({"type": "secret"})))
refused("response_format", lambda: chat(response_format=shaped({"not": {"type": "string"}})))
refused("response_format", lambda: chat(response_format={"type": "grammar"}))
refused("response_format.json_schema.schema", lambda: chat(response_format={"type": "json_schema", "json_schema": {"name": "x"}}))
refused("response_format", lambda: chat(words, response_format={"type": "json_object"}))

# Tools.
parameters = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"], "additionalProperties": False}
tools = [
    {"type": "function", "function": {"name": "weather", "description": "of today", "parameters": parameters}},
    {"type": "function", "function": {"name": "now"}},
]
named = {"type": "function", "function": {"name": "weather"}}
forced = dict(tools=tools, tool_choice=named, max_completion_tokens=200, temperature=1, seed=3)
called = chat(caller, **forced).choices[0]
assert called.finish_reason == "tool_calls" and called.message.content is None, called
(call,) = called.message.tool_calls
assert call.type == "function" and call.function.name == "weather" and call.id
assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")
parts, _ = streamed(caller, **forced)
(delta,) = parts[0]["calls"]
assert (delta.index, delta.type, delta.function.name) == (0, "function", "weather") and parts[0]["finish"] == "tool_calls"
assert delta.function.arguments == call.function.arguments and delta.id
required = chat(caller, **(forced | {"tool_choice": "required"})).choices[0].message.tool_calls[0]
assert required.function.name in ("weather", "now")
conversation = question + [
    called.message.model_dump(exclude_none=True),
    {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
]
after = chat(caller, messages=conversation, tools=tools)
assert after.choices[0].finish_reason in ("stop", "length", "tool_calls")

refused("tools", lambda: chat(tools=tools))
refused("tool_choice", lambda: chat(caller, tools=tools, tool_choice={"type": "function", "function": {"name": "secret"}}))
refused("tool_choice", lambda: chat(caller, tool_choice="required"))
refused("tools[0].function.name", lambda: chat(caller, tools=[{"type": "function", "function": {"name": "a b"}}]))
strict = [{"type": "function", "function": tools[0]["function"] | {"strict": True}}]
assert chat(caller, tools=strict).choices[0].finish_reason in ("stop", "length", "tool_calls")
refused("response_format", lambda: chat(caller, tools=tools, response_format={"type": "json_object"}))
refused("messages[2].tool_call_id", lambda: chat(caller, messages=question + [{"role": "tool", "tool_call_id": "secret", "content": "x"}]))
# The template of the demo model knows no such role.
bare = question + [called.message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "x"}]
refused("messages", lambda: chat(messages=bare))

# Completions.
prompt = "The host sees"
whole = client.completions.create(model=demo, prompt=prompt, max_tokens=8, temperature=0, logprobs=2)
said = whole.choices[0].text
assert whole.object == "text_completion" and whole.usage.completion_tokens <= 8 and whole.choices[0].finish_reason in ("stop", "length")
assert "".join(whole.choices[0].logprobs.tokens) == said
assert len(whole.choices[0].logprobs.token_logprobs) == len(whole.choices[0].logprobs.text_offset)
ids = client.post("/tokenize", body={"model": demo, "prompt": prompt}, cast_to=object)
assert ids["count"] == len(ids["tokens"]) == whole.usage.prompt_tokens
assert client.post("/detokenize", body={"model": demo, "tokens": ids["tokens"]}, cast_to=object)["prompt"] == prompt
chat_ids = client.post("/tokenize", body={"model": demo, "messages": question}, cast_to=object)
assert chat_ids["count"] == greedy.usage.prompt_tokens
several = client.completions.create(model=demo, prompt=[ids["tokens"], ids["tokens"]], max_tokens=8, temperature=0, n=2)
assert [choice.index for choice in several.choices] == [0, 1, 2, 3] and {choice.text for choice in several.choices} == {said}
assert several.usage.prompt_tokens == 2 * ids["count"]
pieces, usage = {}, None
for event in client.completions.create(
    model=demo, prompt=[prompt, prompt], max_tokens=8, temperature=0, stream=True, stream_options={"include_usage": True}
):
    usage = event.usage or usage
    for choice in event.choices:
        pieces[choice.index] = pieces.get(choice.index, "") + choice.text
assert pieces == {0: said, 1: said} and usage.prompt_tokens == 2 * ids["count"]
refused("echo", lambda: client.completions.create(model=demo, prompt=prompt, echo=True))
refused("suffix", lambda: client.completions.create(model=demo, prompt=prompt, suffix="x"))
refused("prompt", lambda: client.completions.create(model=demo, prompt=[]))
refused("prompt", lambda: client.completions.create(model=demo, prompt=[10**6]))
refused("n", lambda: client.completions.create(model=demo, prompt=[prompt, prompt], n=8))
refused("tokens", lambda: client.post("/detokenize", body={"model": demo, "tokens": [10**6]}, cast_to=object))

# Embeddings of token ids, and shorter ones.
sentence = "who can see the prompt"
tokens = client.post("/tokenize", body={"model": embed, "prompt": sentence}, cast_to=object)["tokens"]
by_text, by_tokens = (client.embeddings.create(model=embed, input=given).data[0].embedding for given in (sentence, tokens))
assert max(abs(a - b) for a, b in zip(by_text, by_tokens)) < 1e-5
short = client.embeddings.create(model=embed, input=[tokens, tokens], dimensions=8)
assert [len(item.embedding) for item in short.data] == [8, 8]
assert abs(sum(x * x for x in short.data[1].embedding) - 1) < 1e-4
scale = sum(x * x for x in by_text[:8]) ** 0.5
assert max(abs(a - b / scale) for a, b in zip(short.data[0].embedding, by_text)) < 1e-4
raw = client.embeddings.with_raw_response.create(model=embed, input=sentence, encoding_format="base64")
(item,) = json.loads(raw.text)["data"]
packed = base64.b64decode(item["embedding"])
assert len(packed) == 4 * len(by_text) and abs(struct.unpack_from("<f", packed)[0] - by_text[0]) < 1e-6
refused("dimensions", lambda: client.embeddings.create(model=embed, input=sentence, dimensions=10**6))
refused("dimensions", lambda: client.embeddings.create(model=embed, input=sentence, dimensions=0))
refused("input", lambda: client.embeddings.create(model=embed, input=[10**6]))

# Each limit by name.
for param, fields in [
    ("n", dict(n=9)),
    ("n", dict(n=0)),
    ("logit_bias", dict(logit_bias={str(token): 1 for token in range(301)})),
    ("logit_bias", dict(logit_bias={"1": 101})),
    ("stop", dict(stop=["a", "b", "c", "d", "e"])),
    ("top_logprobs", dict(logprobs=True, top_logprobs=21)),
    ("presence_penalty", dict(presence_penalty=3)),
    ("frequency_penalty", dict(frequency_penalty=-3)),
    ("min_p", dict(extra_body={"min_p": 2})),
    ("top_k", dict(extra_body={"top_k": -5})),
    ("repetition_penalty", dict(extra_body={"repetition_penalty": 0})),
    ("response_format", dict(response_format=shaped({"description": "x" * 70_000}))),
    ("functions", dict(extra_body={"functions": [{"name": "f"}]})),
]:
    refused(param, lambda: chat(**fields))
assert chat(extra_body={"a_field_of_tomorrow": 1}).choices[0].message.content == text

# Every event is JSON of whole characters, and the last says that all is there.
body = {"model": demo, "messages": question, "stream": True, "temperature": 0, "max_tokens": 48}
asked = urllib.request.Request(
    f"{base_url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
)
with urllib.request.urlopen(asked, timeout=60) as response:
    lines = [line.decode() for line in response.read().split(b"\n") if line]
assert lines[-1] == "data: [DONE]"
events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events) == text
print("all said")
