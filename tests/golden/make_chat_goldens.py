#!/usr/bin/env python3
"""Renders the chat templates of this folder with jinja2, as Hugging Face transformers does.

Usage: make_chat_goldens.py        (needs the package jinja2; 3.1.6 made the committed files)

Reads chat_templates/*.jinja and chat_snippets.txt, writes chat_templates/*.json and
chat_snippets.json beside them. The templates have the constructs of the model families they are
named after; smollm2.jinja is the template inside SmolLM2-135M-Instruct.Q4_1.gguf.
"""

import datetime
import json
import pathlib

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = pathlib.Path(__file__).parent
NOW = datetime.datetime(2026, 3, 7, 9, 5, 3)

TOKENS = {
    "chatml": ("", "<|im_end|>"),
    "smollm2": ("<|im_start|>", "<|im_end|>"),
    "llama2": ("<s>", "</s>"),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>"),
    "llama31": ("<|begin_of_text|>", "<|eot_id|>"),
    "mistral_v1": ("<s>", "</s>"),
    "mistral_v2": ("<s>", "</s>"),
    "mistral_v3": ("<s>", "</s>"),
    "qwen2": ("", "<|im_end|>"),
    "qwen25": ("", "<|im_end|>"),
    "qwen3": ("", "<|im_end|>"),
    "phi3": ("<s>", "<|endoftext|>"),
    "gemma": ("<bos>", "<eos>"),
    "gemma3": ("<bos>", "<eos>"),
    "zephyr": ("<s>", "</s>"),
    "deepseek_coder": ("<｜begin▁of▁sentence｜>", "<|EOT|>"),
    "deepseek_llm": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "deepseek_r1": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "macros": ("", ""),
}


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


CONVERSATIONS = {
    "one user turn": turns(("user", "Hello, who are you?")),
    "system and user": turns(("system", "You are terse."), ("user", "Why is the sky blue?")),
    "three turns": turns(("user", "Hi"), ("assistant", "Hello! How can I help?"), ("user", "Sing.")),
    "system and five turns": turns(
        ("system", "  Answer in French.\n"),
        ("user", "One?"),
        ("assistant", "Un."),
        ("user", "Two?"),
        ("assistant", "Deux.\n"),
        ("user", " Three? ")),
    "ends with the assistant": turns(("user", "Finish my"), ("assistant", " sentence, ")),
    "empty contents": turns(("system", ""), ("user", ""), ("assistant", ""), ("user", "")),
    "unicode and spaces": turns(
        ("user", "\u00a0\u3000 naïve 日本語 🦜🏽 \u2003\n"), ("assistant", "ß\x1c\x85"), ("user", "\u200b e\u0301 ")),
    "markup in the text": turns(
        ("user", "{{ messages }} {% if x %} {# no #} <|im_end|> </s> & <b>\"q\"</b> \\n '\t"),
        ("assistant", "a\r\nb"),
        ("user", "x")),
    "reasoning": turns(
        ("user", "2+2?"),
        ("assistant", "<think>\nEasy.\n</think>\n\n4"),
        ("user", "And 3+3?"),
        ("assistant", "<think>\n\nHm.\n\n</think>\n\n6")),
    "a tool response as user": turns(
        ("user", "Weather?"), ("assistant", "I look."), ("user", "<tool_response>sunny</tool_response>")),
    "a tool turn": turns(("user", "Weather?"), ("assistant", "I look."), ("tool", "sunny"), ("tool", "dry")),
    "assistant first": turns(("assistant", "I begin."), ("user", "Do you?")),
    "two user turns": turns(("user", "a"), ("user", "b")),
    "system last": turns(("user", "a"), ("assistant", "b"), ("system", "c")),
    "unknown role": turns(("moderator", "Order!"), ("user", "yes")),
    "empty": [],
}


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment(with_clock):
    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller):
            return caller()

    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    if with_clock:
        env.globals["strftime_now"] = NOW.strftime
    return env


def render(source, messages, bos, eos, prompt, with_clock):
    env = environment(with_clock)
    try:
        text = env.from_string(source).render(
            messages=messages, tools=None, documents=None, add_generation_prompt=prompt,
            bos_token=bos, eos_token=eos)
        return {"text": text}
    except jinja2.exceptions.TemplateError as error:
        if type(error) is jinja2.exceptions.TemplateError:
            return {"raised": str(error)}
        return {"failed": type(error).__name__}
    except Exception as error:  # an exception of Python inside the template
        return {"failed": type(error).__name__}


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", newline="\n")


def main():
    for path in sorted((HERE / "chat_templates").glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        bos, eos = TOKENS[path.stem]
        cases = []
        for name, messages in CONVERSATIONS.items():
            for prompt in (True, False):
                for clock in (False, True) if "strftime_now" in source else (False,):
                    result = render(source, messages, bos, eos, prompt, clock)
                    cases.append({"name": name, "messages": messages, "add_generation_prompt": prompt,
                                  "clock": clock, **result})
        write(path.with_suffix(".json"), {"bos_token": bos, "eos_token": eos, "cases": cases})

    # Snippets are separated by lines of four dashes; a line's own end belongs to the separator.
    text = (HERE / "chat_snippets.txt").read_text(encoding="utf-8")
    snippets = []
    for source in text.split("\n----\n"):
        result = render(source, CONVERSATIONS["system and five turns"], "<s>", "</s>", True, True)
        snippets.append({"source": source, **result})
    write(HERE / "chat_snippets.json", {
        "messages": CONVERSATIONS["system and five turns"], "bos_token": "<s>", "eos_token": "</s>",
        "cases": snippets})


if __name__ == "__main__":
    main()
