#!/usr/bin/env python3
"""Chat templates against Jinja2 itself, byte for byte: templates in the styles of model families, small ones for every
corner of the language, and random ones.

usage: chat_template_test.py RENDER_TEMPLATE [SEED [N]]. The environment is that in which such templates are
carried out everywhere: sandboxed, blocks trimmed, loop controls, a JSON filter that leaves characters as they are.
"""
import datetime
import json
import random
import subprocess
import sys

try:
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError:
    print("skipped: python3-jinja2 is not installed")
    sys.exit(77)


class Generation(Extension):
    """{% generation %}...{% endgeneration %}: a block with names of its own."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_show", []), [], [], body).set_lineno(line)

    def _show(self, caller):
        return caller()


def refuse(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = refuse
    env.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return env


ENV = environment()


def by_jinja2(words, values):
    names = {"tools": None, "documents": None, "add_generation_prompt": False, **values}
    try:
        return ENV.from_string(words).render(**names)
    except Exception as error:  # whatever it is, ours must refuse too
        return error


# ---- templates in the styles of model families -----------------------------------------------------------------------

STYLES = {
    "chatml": """{% for message in messages %}{% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system
Be of help.<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "bracketed": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set sys = messages[0]['content'] %}{% else %}{% set rest = messages %}{% set sys = false %}{% endif %}
{% for message in rest %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('user and assistant must take turns') }}{% endif %}
{% if loop.index0 == 0 and sys != false %}{% set content = '<<SYS>>\\n' + sys + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content | trim + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content | trim + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "headers": """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Cannot put tools in the first user message when there's no first user message!") }}
{%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' -}}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "turns": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\\n'}}
{%- endif -%}
""",
    "bars": """{% for message in messages %}{{ '<|' + message['role'] + '|>' + '\\n' + message['content'] + '<|end|>' + '\\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}
""",
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "vicuna": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] + ' ' }}{% elif message['role'] == 'user' %}{{ 'USER: ' + message['content'] + ' ' }}{% elif message['role'] == 'assistant' %}{{ 'ASSISTANT: ' + message['content'] + '</s>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}""",
    "instruct": """{% if messages[0].role == 'system' %}{{ messages[0].content.rstrip() }}

{% endif %}
{%- for m in messages if m.role != 'system' %}
### {{ 'Instruction' if m.role == 'user' else 'Response' }}:
{{ m.content }}

{% endfor %}
{% if add_generation_prompt %}
### Response:
{% endif %}""",
    "thinking": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n\\nYou may call one or more functions.\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",
    "available_tools": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " ~ message["content"] ~ "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- ', "id": "none"}' }}
            {%- else %}
                {{- ', "id": "' + tool_call.id + '"}' }}
            {%- endif %}
            {{- ", " if not loop.last else "]" + eos_token }}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- set content = message.content.content if message.content is mapping and message.content.content is defined else message.content %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}
        {{- '"call_id": "x"}[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}
""",
    "schemas": """{%- macro json_to_python_type(json_spec) %}
{%- set basic_type_map = {"string": "str", "number": "float", "integer": "int", "boolean": "bool"} %}
{%- if basic_type_map[json_spec.type] is defined %}
    {{- basic_type_map[json_spec.type] }}
{%- elif json_spec.type == "array" %}
    {{- "List[" +  json_to_python_type(json_spec['items']) + "]"}}
{%- elif json_spec.type == "object" %}
    {%- if json_spec.additionalProperties is defined %}
        {{- "Dict[str, " + json_to_python_type(json_spec.additionalProperties) + ']'}}
    {%- else %}
        {{- "Dict" }}
    {%- endif %}
{%- elif json_spec.type is iterable %}
    {{- "Union[" }}
    {%- for t in json_spec.type %}
      {{- json_to_python_type({"type": t}) }}
      {%- if not loop.last %}
        {{- "," }}
    {%- endif %}
    {%- endfor %}
    {{- "]" }}
{%- else %}
    {{- "Any" }}
{%- endif %}
{%- endmacro %}

{%- macro tool_parser(tools) %}
{%- for tool in tools %}
{{ "- " }}{{ tool.function.name }}
{%- for param_name, param_fields in tool.function.parameters.properties|items %}
    {{- "\\n    " + param_name + ": " }}
    {{- json_to_python_type(param_fields) }}
    {%- if param_fields.description %}{{- " (" + param_fields.description|lower|replace('.', '') + ")" }}{%- endif %}
    {%- if param_name in (tool.function.parameters.required or []) %} *required*{% endif %}
{%- endfor %}
{%- endfor %}
{%- endmacro %}
{{ bos_token }}{% if tools %}{{ tool_parser(tools) }}{% endif %}
{% for m in messages %}
{{ "<|" ~ m.role|upper ~ "|>" }}{{ m.content if m.content is string else m.content|tojson }}
{% endfor %}
""",
    "training": """{% for message in messages %}
{%- if message.role == 'assistant' -%}
{{ '<|assistant|>' }}{% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}

{%- elif message.role == 'user' -%}
{{ '<|user|>' ~ (message.content if message.content is string else (message.content | map(attribute='text') | join(' '))) }}
{%- else -%}
{% continue %}
{%- endif -%}
{% endfor %}
{{- '<|assistant|>' if add_generation_prompt -}}
""",
    "channels": """{%- macro render_typescript_type(param_spec, required_params, is_nullable=false) -%}
    {%- if param_spec.type == "array" -%}
        {%- if param_spec['items'] -%}
            {%- if param_spec['items']['type'] == "string" -%}
                {{- "string[]" }}
            {%- else -%}
                {{- "any[]" }}
            {%- endif -%}
            {%- if param_spec.nullable -%}
                {{- " | null" }}
            {%- endif -%}
        {%- endif -%}
    {%- elif param_spec.type is defined and param_spec.type is iterable and param_spec.type is not string and param_spec.type is not mapping and param_spec.type[0] is defined -%}
        {{- param_spec.type | join(" | ") }}
    {%- elif param_spec.type == "string" -%}
        {%- if param_spec.enum -%}
            {{- '"' + param_spec.enum|join('" | "') + '"' -}}
        {%- else -%}
            {{- "string" }}
        {%- endif -%}
    {%- else -%}
        {{- param_spec.type|default("any") }}
    {%- endif -%}
{%- endmacro -%}
{%- macro render_tool_namespace(namespace_name, tools) -%}
    {{- "## " + namespace_name + "\\n\\n" }}
    {{- "namespace " + namespace_name + " {\\n\\n" }}
    {%- for tool in tools %}
        {%- set tool = tool.function %}
        {{- "// " + tool.description|default("") + "\\n" }}
        {{- "type "+ tool.name + " = " }}
        {%- if tool.parameters and tool.parameters.properties -%}
            {{- "(_: {\\n" }}
            {%- for param_name, param_spec in tool.parameters.properties.items() %}
                {{- param_name }}
                {%- if param_name not in (tool.parameters.required or []) -%}
                    {{- "?" }}
                {%- endif -%}
                {{- ": " }}
                {{- render_typescript_type(param_spec, tool.parameters.required or []) }}
                {%- if param_spec.default is defined -%}
                    {%- if param_spec.default is string -%}
                        {{- ", // default: \\"" + param_spec.default + "\\"" }}
                    {%- else -%}
                        {{- ", // default: " + param_spec.default|string }}
                    {%- endif -%}
                {%- endif -%}
                {{- ",\\n" }}
            {%- endfor %}
            {{- "}) => any;\\n\\n" }}
        {%- else -%}
            {{- "() => any;\\n\\n" }}
        {%- endif -%}
    {%- endfor %}
    {{- "} // namespace " + namespace_name }}
{%- endmacro -%}
{{- "<|start|>system<|message|>" }}
{{- "Reasoning: " + reasoning_effort|default("medium") + "\\n" }}
{{- "# Valid channels: analysis, commentary, final." }}
{{- "<|end|>" }}
{%- if messages[0].role == "developer" or messages[0].role == "system" %}
    {%- set developer_message = messages[0].content %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set developer_message = "" %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if developer_message or tools %}
    {{- "<|start|>developer<|message|>" }}
    {{- developer_message }}
    {%- if tools -%}
        {{- "\\n\\n# Tools\\n\\n" }}
        {{- render_tool_namespace("functions", tools) }}
    {%- endif -%}
    {{- "<|end|>" }}
{%- endif %}
{%- set last_tool_call = namespace(name=none) %}
{%- for message in loop_messages -%}
    {%- if message.role == 'assistant' -%}
        {%- if "tool_calls" in message %}
            {%- set tool_call = message.tool_calls[0].function %}
            {{- "<|start|>assistant to=functions." + tool_call.name + "<|channel|>commentary json<|message|>" }}
            {{- tool_call.arguments|tojson }}
            {{- "<|call|>" }}
            {%- set last_tool_call.name = tool_call.name %}
        {%- elif loop.last and not add_generation_prompt %}
            {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|return|>" }}
        {%- else %}
            {{- "<|start|>assistant<|channel|>final<|message|>" ~ message.content ~ "<|end|>" }}
            {%- set last_tool_call.name = none %}
        {%- endif %}
    {%- elif message.role == 'tool' -%}
        {%- if last_tool_call.name is none %}
            {{- raise_exception("Message has tool role, but there was no previous assistant message with a tool call!") }}
        {%- endif %}
        {{- "<|start|>functions." + last_tool_call.name }}
        {{- " to=assistant<|channel|>commentary<|message|>" + message.content|tojson + "<|end|>" }}
    {%- elif message.role == 'user' -%}
        {{- "<|start|>user<|message|>" ~ message.content ~ "<|end|>" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|start|>assistant
{%- endif -%}
""",
    "documents": """{{ bos_token }}{% if documents %}<|START_OF_TURN_TOKEN|>
{% for document in documents %}{% set index = loop.index0 %}
Document: {{ index }}
{% for key, value in document.items() if key != 'id' %}{{ key }}: {{ value }}
{% endfor %}{% endfor %}{% endif %}
{%- if (messages | first).role == 'system' %}{{ (messages | first)['content'] }}{% set messages = messages[1:] -%}{% endif %}
{% for message in messages -%}
{% set content = message.get('content', '') or '' %}
{{- '<|' ~ (message['role'] | upper) ~ '|>' ~ (content.strip() if content is string else content | length | string) -}}
{% else %}none{% endfor -%}
""",
}

U = lambda text: {"role": "user", "content": text}
A = lambda text: {"role": "assistant", "content": text}
S = lambda text: {"role": "system", "content": text}
T = lambda text: {"role": "tool", "content": text}
TOOLS = [{"type": "function", "function": {
    "name": "tide", "description": "How high the water <is> & when.",
    "parameters": {"type": "object", "required": ["place"], "properties": {
        "place": {"type": "string", "description": "The Harbour."}, "days": {"type": "integer", "default": 3},
        "units": {"type": "string", "enum": ["m", "ft"], "default": "m"}, "at": {"type": ["string", "null"]},
        "all": {"type": "array", "items": {"type": "string"}, "nullable": True},
        "more": {"type": "object", "additionalProperties": {"type": "number"}}}}}},
    {"type": "function", "function": {"name": "now", "description": "\u00fcber 'quotes' \"two\"", "parameters": {}}}]
CALL = {"role": "assistant", "content": None, "tool_calls": [
    {"id": "abcdefghi", "type": "function", "function": {"name": "tide", "arguments": {"place": "Br\u00fcgge", "days": 2,
                                                                                       "x": [1.5, True, None]}}}]}
CONVERSATIONS = [
    [U("How many waves today?")],
    [S("Be brief."), U("Hi")],
    [U("a"), A("b"), U("c")],
    [S("  padded \n"), U("\n\u00a0 x y \u2003\n"), A(" z "), U("   ")],
    [U("")],
    [U("\u00e9\u4f60 <|im_end|> {{ 7 }} {% if %}"), A("<think>\nhm\n</think>\n\nyes"), U("so?")],
    [S("s"), U("1"), A("2"), U("3"), A("4"), U("5"), A("6")],
    [U("tide?"), CALL, T("4.2 m"), A("It is 4.2 m."), U("thanks")],
    [S("tools"), U("tide?"), CALL, T({"height": 4.2, "ok": True}), T("more"), A("<think>x</think>done")],
    [U([{"type": "text", "text": " look "}, {"type": "image"}, {"type": "text", "text": "here"}]), A("ok")],
    [A("first"), U("second")],
    [U("x"), U("y")],
]


def style_cases():
    for name, words in STYLES.items():
        for i, messages in enumerate(CONVERSATIONS):
            for more in ({}, {"add_generation_prompt": True}, {"tools": TOOLS},
                         {"add_generation_prompt": True, "enable_thinking": False, "reasoning_effort": "high",
                          "tools": TOOLS, "documents": [{"id": 1, "title": "T", "text": "a\nb"}],
                          "tools_in_user_message": False, "date_string": "1 Jan 2030"}):
                yield "%s/%d" % (name, i), words, {"messages": messages, "bos_token": "<s>", "eos_token": "</s>", **more}


# ---- small ones for every corner -------------------------------------------------------------------------------------

VALUES = {
    "s": "Hello, W\u00f6rld", "t": "  two\n words\t", "e": "", "u": "\u00e9\u4f60\U0001f30d\u00df\ufb01", "n": 7, "z": 0, "neg": -3, "f": 2.5,
    "g": 1e20, "h": 0.1, "b": True, "c": False, "nil": None, "l": [3, 1, 2], "ll": [[1, 2], [3], []],
    "d": {"b": 1, "a": "x", "C": None}, "names": ["b", "A", "c", "a"], "messages": [U("hi"), A("ho"), S("he")],
    "people": [{"name": "Bo", "age": 30, "pet": {"kind": "cat"}}, {"name": "al", "age": 25}, {"name": "Cy", "age": 30}],
    "quote": "it's \"q\" \\ \u00a0\u200b\x07", "html": "<a href='x'>&</a>", "lines": "a\nb\r\nc\n\nd\n",
    "mixed": [1, "a", None, 2.5, True, [1], {"k": "v"}], "keys": {"1": "one", "items": "shadow", "get": 5},
}

EXPRESSIONS = """
s|s + t|s ~ n ~ f ~ nil ~ b ~ l ~ d|1 + 2 * 3 ** 2 - 4 // 3|7 / 2|-7 // 2|-7 % 3|7 % -3|2.5 // 1|-2.5 % 2|2 ** -1|2 ** 0.5|1e16|1e15|123456789012345680.0
0.1 + 0.2|1/3|1e-5|0.0001|100000.0|-0.0|1e300 * 1e10|5e-324|b + 1|True == 1|1 == 1.0|'a' < 'b'|[1, 2] < [1, 3]|l == [3, 1, 2]|(1, 2) == (1, 2)|(1,)|()|(1, 2)
1 < 2 < 3|1 < 2 > 3|not b|not not s|nil or 'x'|z or e or 'last'|s and n|b if c else n|b if c|(b if c) is defined|n is odd|n is even|n is divisibleby 7|n is divisibleby(2)
s is string|n is number|f is number|b is number|n is integer|b is integer|f is float|b is boolean|nil is none|nil is not none|missing is defined|missing is undefined|not missing is defined
l is sequence|l is iterable|d is mapping|s is iterable|n is iterable|d is sequence|d.items() is sequence|l is sameas l|b is true|c is false|n is true|s is lower|s is upper|'abc' is lower
n is eq 7|n is gt(3)|n is in l|3 is in(l)|1 is in l|'x' is in d|s is callable|range is callable|n is ge 7|n is lt 8|n is ne(7)|n is le 6
1 in l|9 not in l|'a' in d|'ell' in s|not 'ell' in s|n in range(10)|'' in s|nil in mixed|d.a in d.values()
s[0]|s[-1]|s[1:3]|s[::-1]|s[::2]|s[5:]|s[:-3]|s[100]|s[100:]|u[1]|u[::-1]|u|length|l[0]|l[-1]|l[5]|l[1:]|l[::-1]|l[-2:]|l[:1] + l[1:]|(1,2,3)[1:]|range(10)[2:8:3]
d.a|d['a']|d.zz|d['zz']|d.get('a')|d.get('q')|d.get('q', 5)|keys.items|keys['items']|keys['1']|keys.get('get')|people[0].pet.kind|people[1].pet|people.0.name|l.0|nil.foo|n.foo|s.foo
d|list|d.keys()|d.values()|d.items()|d.items()|list|d|length|d.copy()|list('abc')|'abc'|list|dict(a=1, b=2)|dict(d, e=5)|dict([['x', 1]])|{'a': 1, 'b': [1, {'c': none}]}|{1: 2, none: 3, true: 4}
range(5)|range(5)|list|range(2, 8, 3)|list|range(5, 0, -2)|list|range(0)|list|range(3) == range(0, 3)
s|upper|s|lower|s|capitalize|s|title|'foo-bar (baz) [q'|title|u|upper|'STRASSE'|lower|'\u00df'.upper()|'\ufb01x'.title()|'\u0391\u03a3'|lower|'a\u00dfc'|capitalize|s.swapcase()|'ab cd'.title()|"it's".title()
t|trim|t.strip()|t.lstrip()|t.rstrip()|'xxaxx'.strip('x')|'xyaxy'|trim('xy')|'abc'.strip('')|t.split()|'a,b,,c'.split(',')|'a,b,c'.split(',', 1)|'a b  c'.split(' ')|' a b c '.split(none, 1)|'a,b,c'.rsplit(',', 1)|' a b c '.rsplit(none, 1)
''.split()|''.split(',')|lines.splitlines()|lines.splitlines(true)|'a-b-c'.partition('-')|'a-b-c'.rpartition('-')|'abc'.partition('x')|'abc'.rpartition('x')
s.find('l')|s.find('zz')|s.rfind('l')|s.index('l')|s.index('zz')|s.count('l')|'aaa'.count('aa')|'abc'.count('')|'abc'.find('')|s.find('l', 3)|s.find('o', 5, 9)|u.find('\U0001f30d')
s.startswith('He')|s.startswith(('x', 'He'))|s.endswith('ld')|s.startswith('l', 2)|s.removeprefix('He')|s.removesuffix('ld')|s.removeprefix('x')
s.replace('l', 'L')|s.replace('l', 'L', 1)|s|replace('o', '0')|'abc'|replace('', '-')|n|replace(7, 8)|'a.b'.replace('.', '')|'aaa'|replace('a', 'b', 2)
'-'.join(names)|names|join|names|join(', ')|l|join('-')|people|join(', ', attribute='name')|mixed|join('|')|'-'.join(l)|''.join([])
'%s and %d' % (s, n)|'%s' % l|'%05d|%-5d|%+d|% d' % (n, n, n, n)|'%x %X %o %#x' % (255, 255, 8, 255)|'%.2f %e %g %G' % (f, f, g, h)|'%%'|'%5s|%-5s|%.2s' % ('ab', 'ab', 'abc')|'%(a)s %(b)d' % d|'%c%c' % ('x', 'y')|'%r' % s|'%d' % f|'%d' % s|'%s %s' % s|'%s' % (1, 2)|'%i' % n|'%*d' % (5, n)|'%s' | format('x')|'%(x)s' | format(x=3)
'{} {}'.format(1, 'a')|'{0} {1} {0}'.format('a', 'b')|'{x} {y}'.format(x=1, y=2)|'{:>5}|{:<5}|{:^5}|{:*^7}'.format('a', 'b', 'c', 'd')|'{:05d} {:+d} {:x} {:,}'.format(42, 7, 255, 1234567)|'{:.2f} {:.0%} {:e} {:g}'.format(3.14159, 0.25, 12345.678, 0.0001)|'{{}} {}'.format(1)|'{!r} {!s}'.format('a', 'b')|'{0.name} {0[age]}'.format(people[0])|'{:{}}'.format('x', 4)|'{:5}'.format(42)|'{:5}'.format('x')|'{:.3}'.format('abcdef')|'{:.3}'.format(2.0/3)|'{}'.format(none)|'{:b} {:#o} {:_}'.format(5, 8, 1000000)
l|sort|names|sort|names|sort(case_sensitive=true)|names|sort(reverse=true)|people|sort(attribute='age')|map(attribute='name')|list|people|sort(attribute='age,name')|map(attribute='name')|list|mixed|sort|d|dictsort|d|dictsort(true)|d|dictsort(false, 'value')|{'b':2,'a':3}|dictsort(by='value', reverse=true)
l|first|l|last|[]|first|[]|last|s|first|s|last|l|min|l|max|names|min|people|max(attribute='age')|[]|max|l|sum|people|sum(attribute='age')|[]|sum|[1.5, 2]|sum|l|sum(start=10)
l|reverse|list|s|reverse|names|unique|list|['a','A','b']|unique|list|['a','A','b']|unique(true)|list|l|length|l|count|s|length|n|length|nil|length|missing|length
l|map('string')|list|names|map('upper')|list|people|map(attribute='pet.kind')|list|people|map(attribute='pet', default='none')|list|l|select('odd')|list|l|reject('odd')|list|l|select|list|mixed|select('string')|list|people|selectattr('age', 'gt', 26)|map(attribute='name')|list|people|selectattr('pet')|list|length|people|rejectattr('pet')|map(attribute='name')|list|messages|selectattr('role','equalto','user')|list|length
l|batch(2)|list|l|batch(2, 0)|list|[1,2,3,4,5,6,7]|slice(3)|list|people|groupby('age')|map('first')|list|people|groupby('age')|map(attribute='list')|map('length')|list|people|groupby('age')|list|length
d|items|list|d|tojson|mixed|tojson|u|tojson|quote|tojson|d|tojson(indent=2)|ll|tojson(indent=1)|{}|tojson(indent=2)|d|tojson(separators=(',', ':'))|d|tojson(sort_keys=true)|u|tojson(ensure_ascii=true)|missing|tojson|f|tojson|g|tojson|{1:2, none:3}|tojson|html|tojson|(1,2)|tojson|tojson
n|string + 'x'|l|string|quote|list|[quote]|{'k': quote}|[u]|[s, t]|["it's"]|['"']|['it\\'s "both"']|n|float|'3.7'|float|'x'|float|'x'|float(9)|'42'|int|'42.9'|int|'x'|int|'x'|int(5)|'ff'|int(0, 16)|'0x1f'|int(base=16)|' 12 '|int|'1_000'|int|f|int|b|int|nil|int|'-5'|int|'1e3'|int|'+7'|int
2.5|round|3.5|round|2.567|round(2)|2.567|round(1, 'ceil')|2.567|round(1, 'floor')|7|round|1234.5|round(-2)|neg|abs|f|abs|s|abs|1.005|round(2)
missing|default('d')|nil|default('d')|nil|default('d', true)|e|d('x', boolean=true)|missing|d|s|default('d')|missing.foo|missing['x']|missing + 1|missing ~ 'x'|missing == missing|missing|upper|missing|list|missing()|(missing or 'y')
t|indent|lines|indent|lines|indent(2, true)|lines|indent('> ', blank=true)|lines|indent(1, first=true, blank=true)|'abc def ghi'|truncate(7)|'abc def ghi jkl mno'|truncate(10)|'abc def ghi jkl mno'|truncate(10, true)|'abc def ghi jkl mno'|truncate(10, false, '!', 0)|'a b c'|wordcount|s|wordcount|'x'|center(5)|'ab'|center(5)|'ab'.center(6, '*')|'ab'.ljust(4) ~ '|'|'ab'.rjust(4)|'7'.zfill(3)|'-7'.zfill(4)
html|escape|html|e|html|safe|'<b>'|safe + '<i>'|'<i>' + '<b>'|safe|html|forceescape|(html|e)|e|s|urlencode|'a b/c?d=\u00e9'|urlencode|{'q': 'a b', 'r': 'x&y'}|urlencode|1000|filesizeformat|1|filesizeformat|123456789|filesizeformat|1024|filesizeformat(true)|0|filesizeformat
'abc'.isalpha()|'a1'.isalnum()|'12'.isdigit()|' '.isspace()|''.isspace()|'abc'.islower()|'ABC1'.isupper()|u.isascii()|'\u0663'.isdigit()|s.isalpha()
l.index(2)|l.count(1)|l.append(4)|d.update({})|d.pop('a')|l.sort()|d.clear|s.__class__|s.format|names.copy()|(1,2,2).count(2)|(1,2).index(2)|[1,2] + [3]|[1] * 3|'ab' * 2|2 * 'ab'|'ab' * 0|(1,) * 2|[] + ()|'a' + 1|1 + 'a'|1 + nil|l + s|nil < 1|'a' < 1|-s|+n|-f|-b|[1, 'a'] < ['b']
namespace(a=1).a|namespace(a=1).b|namespace({'x': 2}).x|namespace(a=1)|cycler('a', 'b').next()|joiner(', ')()|s|nofilter|s is notest|dict|s()|n()|raise_exception('no!')|1 // 0|1 % 0|1 / 0|0 ** -1|caller is defined
'a' 'b' "c"|'\\x41\\u00e9\\n\\t\\'\\"\\\\'|'\\q'|'\\101'|"tab\\tnl"|'\U0001f600'|1_000|0x1F|0b101|0o17|1.5e3|1E-2|12.0|3.14|007|1.|[1, 2,]|{'a': 1,}|(1, 2,)|f(1,)|true|True|none|None|false and missing.x|true or missing.x
[[1,2],[3,4]][1][0]|{'a': {'b': {'c': 'deep'}}}.a.b.c|{'a': 1}['a']|'abc'[1]|"abc"|upper|lower|title|length|(s|lower).split(',')[0]|s.lower().split(',')|last|trim|(1 + 2) * 3|-2 ** 2|2 ** 3 ** 2|not 1 == 2|-1|abs|1 - -1|1 ~ 2 + 3|1 + 2 ~ 3|'a' ~ 'b' == 'ab'|[x for x in l]|l[|s.|s|(|1 +|{{|'unclosed
"""

BLOCKS = [
    "a\n{% if true %}\nb\n{% endif %}\nc", "  {% if true %}  x  {% endif %}  ", "x {%- if true -%} y {%- endif -%} z", "x {%+ if true %} y {% endif +%}\n z",
    "{{ 1 -}}   \n {{- 2 }}", "a {#- c -#} b", "a\n  {# c #}\nb", "{#+ c +#}\nb", "a\n\n  {%- set x = 1 %}\n\nb{{ x }}", "{% raw %}{{ x }}{% endraw %}", "a {%- raw -%} {{ x }} {%- endraw -%} b",
    "a\n{% raw %}\n {{ x }}\n{% endraw %}\nb", "trailing\n", "trailing\n\n", "\n", "", "   ", "a\r\nb\rc\n", "{{ 'a\r\nb' }}", "\t{% set x = 1 %}\ty", "x{% set y %} b {% endset %}[{{ y }}]",
    "{% set y | upper | trim %} b {% endset %}[{{ y }}]", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set (a, b) = [3, 4] %}{{ a }}{{ b }}", "{% set a, b = [1] %}", "{% set a = 1, 2 %}{{ a }}",
    "{% for i in l %}{{ i }}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}|{% endfor %}",
    "{% for i in l %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }};{% endfor %}", "{% for i in [] %}x{% else %}none{% endfor %}", "{% for i in l %}{{ i }}{% else %}none{% endfor %}",
    "{% for i in l if i > 1 %}{{ i }}{{ loop.length }}{{ loop.last }},{% else %}no{% endfor %}", "{% for i in l if i > 9 %}{{ i }}{% else %}no{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }}{% endfor %}", "{% for k, v in d|dictsort %}{{ k }}{{ v }}{% endfor %}", "{% for c in s %}{{ c }}.{% endfor %}",
    "{% for a, b in [[1, 2], (3, 4)] %}{{ a + b }}{% endfor %}", "{% for a, (b, c) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for a, b in [[1]] %}{% endfor %}", "{% for i in n %}{% endfor %}", "{% for i in nil %}{% endfor %}", "{% for i in missing %}{% else %}e{% endfor %}",
    "{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "{% break %}", "{% for i in l %}{% for j in l %}{% if j == 1 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}",
    "{% for i in range(3) %}{% break %}{% else %}x{% endfor %}", "{% for i in l %}{{ loop.cycle('a', 'b') }}{{ loop.changed(i > 1) }}{% endfor %}", "{% set x = 1 %}{% for i in l %}{{ x }}{% set x = i %}{{ x }} {% endfor %}{{ x }}",
    "{% set ns = namespace(n=0) %}{% for i in l %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "{% set d.a = 1 %}", 
    "{% if z %}a{% elif n %}b{% else %}c{% endif %}", "{% if z %}a{% elif e %}b{% else %}c{% endif %}", "{% if s %}{% set q = 1 %}{% endif %}{{ q }}", "{% if z %}{% set q = 1 %}{% endif %}[{{ q }}]", "{% if missing %}a{% else %}b{% endif %}",
    "{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}|{{ m(1, 3) }}|{{ m(b=5, a=4) }}|{{ m() }}|{{ m.name }}{{ m.arguments }}", "{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}",
    "{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}x{{ s }}{% endcall %}", "{% macro m() %}{% for i in [1, 2] %}{{ caller(i, i * 2) }}{% endfor %}{% endmacro %}{% call(a, b) m() %}{{ a }}-{{ b }};{% endcall %}", "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}", "{% macro m() %}[{{ caller() }}]{% endmacro %}{{ m() }}",
    "{% set x = 1 %}{% macro m() %}{{ x }}{% set x = 5 %}{{ x }}{% endmacro %}{{ m() }}{% set x = 2 %}{{ m() }}{{ x }}", "{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}", "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}b{% endmacro %}{{ a() }}", "{% for i in l %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}", "{% macro m(x) -%}\n  {{ x }}\n{%- endmacro %}<{{ m(1) }}>",
    "{% filter upper %}abc {{ s }}{% endfilter %}", "{% filter replace('a', 'b') | upper %}aaa{% endfilter %}", "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}", "{% with %}{% set x = 3 %}{{ x }}{% endwith %}{{ x }}", "{% set a = 5 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}",
    "{% for i in [[1, [2, [3]]], 4] recursive %}{{ i if i is not iterable else '[' ~ loop(i) ~ ']' }}{{ loop.depth0 }}{% endfor %}", "{% for i in l %}{{ loop(l) }}{% endfor %}", "{% print 1, 2 %}", "{% generation %}x{% set y = 1 %}{% endgeneration %}{{ y }}", "{% generation %}\nx\n{% endgeneration %}\ny",
    "{% block a %}x{{ s }}{% endblock %}", "{% block a %}x{% endblock a %}y", "{{ 1, 2 }}", "{{ }}", "{% %}", "{% unknown %}", "{% if %}", "{% endif %}", "{% if true %}", "{% for %}", "{{ 1 2 }}", "{{ 'a }}", "{# open", "{% raw %}", "{{ (1 }}", "{{ 1) }}", "{{ [1} }}", "{{ a.b.c }}", "{{ a[ }}", "{% set %}", "{% set 1 = 2 %}", "{% macro %}", "{% if true %}a{% endfor %}", "} }} %} #}", "{ { {% if true %}{{ '}}' }}{% endif %}", "{{ '{{' }}{{ \"%}\" }}", "{{ {'a': {'b': 1}} }}", "{{ {'a': {'b': 1}}}}", "{{'x'}}{{-'y'-}} z", "{{ -1 }}{{-1}}{{+1}}",
    "{% set j = joiner('|') %}{% for i in l %}{{ j() }}{{ i }}{% endfor %}", "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ c.current }}", "{% set g = l | map('string') %}{{ g | first }}{{ g | list }}{{ g | list }}", "{% set g = names | select('string') %}{% for i in g %}{{ i }}{{ loop.last }}{% endfor %}{{ g | list }}", "{% for i in l | reverse %}{{ i }}{% endfor %}", "{% for g in people | groupby('age') %}{{ g.grouper }}:{% for p in g.list %}{{ p.name }},{% endfor %};{% endfor %}", "{% for age, list in people | groupby('age') %}{{ age }}{{ list | length }}{% endfor %}",
    "{% if n is not none and n > 3 and not c %}y{% endif %}", "{% if 'a' in d and d.a is string %}y{% endif %}", "{{ 'y' if n > 3 else 'n' }}{{ 'x' if c }}", "{% set x = 'a' if c else 'b' if z else 'c' %}{{ x }}", "{{ loop }}", "{% set loop = 3 %}{{ loop }}", "{% for i in l -%}\n  {{ i }}\n{%- endfor %}", "{% for i in l %}\n  {{ i }}\n  {% if not loop.last %}\n,\n  {% endif %}\n{% endfor %}\n", "a{% set x = 1 -%}\n\n  b", "a\n   {%- if true %} b{% endif %}\n   {{- 'c' }}\n", "\n\n{% if true %}\n\nx\n\n{% endif %}\n\n", "  {{ 1 }}  \n  {% if true %}\n  y\n  {% endif %}  \nz", "\u00a0{%- if true %}x{% endif %}", "{%if true%}a{%else%}b{%endif%}", "{%-if true-%}a{%-endif-%}", "{% if true: %}a{% endif %}",
]


def expressions():
    """Split at bars that stand between expressions: a bar with a filter behind it has no twin, so each line is tried at every
    bar: what is before it and what is behind it, and all of it."""
    for line in EXPRESSIONS.strip("\n").split("\n"):
        parts = line.split("|")
        for i in range(len(parts)):
            for j in range(i + 1, min(i + 4, len(parts)) + 1):
                yield "|".join(parts[i:j])


def small_cases():
    for text in dict.fromkeys(expressions()):
        yield "expression", "{{ " + text + " }}", VALUES
    for text in BLOCKS:
        yield "block", text, VALUES


# ---- random ones -----------------------------------------------------------------------------------------------------

class Maker:
    """Random templates that are mostly sound."""
    NAMES = ["s", "t", "e", "n", "z", "f", "b", "nil", "l", "ll", "d", "names", "people", "missing", "x", "y", "u", "lines"]
    FILTERS = ["upper", "trim", "length", "first", "last", "list", "join(',')", "tojson", "string", "sort", "reverse|list", "default('q')",
               "int", "float", "title", "capitalize", "indent(2)", "unique|list", "map('string')|list", "select|list", "abs", "round(1)",
               "replace('a','b')", "dictsort", "items|list", "sum", "max", "min", "batch(2)|list", "wordcount", "tojson(indent=1)", "e"]
    TESTS = ["defined", "none", "string", "number", "mapping", "iterable", "sequence", "odd", "even", "true", "integer", "lower", "boolean"]
    METHODS = ["strip()", "upper()", "split()", "split('l')", "startswith('H')", "items()|list", "keys()|list", "get('a')", "rstrip('\\n')",
               "replace('l','')", "title()", "find('l')", "count('a')", "index(1)", "splitlines()", "lstrip()"]
    GAPS = ["", "-", "", "", "+"]

    def __init__(self, seed):
        self.r = random.Random(seed)

    def expression(self, depth=0):
        r = self.r
        kind = r.randrange(16 if depth < 4 else 5)
        sub = lambda: self.expression(depth + 1)
        if kind < 3:
            return r.choice(self.NAMES)
        if kind == 3:
            return r.choice(["1", "0", "2.5", "'a b'", "''", "true", "none", "[1, 'x']", "{'a': 1}", "-3", "'L\\n'", "(1, 2)", "10"])
        if kind == 4:
            return "%s[%s]" % (r.choice(self.NAMES), r.choice(["0", "-1", "'a'", "1:", ":2", "::-1", "::2", "-2:", "5"]))
        if kind == 5:
            return "%s %s %s" % (sub(), r.choice(["+", "-", "*", "~", "==", "!=", "<", "in", "not in", "and", "or", "//", "%", ">=", "~", "~"]), sub())
        if kind == 6:
            return "(%s)|%s" % (sub(), r.choice(self.FILTERS))
        if kind == 7:
            return "%s|%s" % (r.choice(self.NAMES), r.choice(self.FILTERS))
        if kind == 8:
            return "%s is %s%s" % (r.choice(self.NAMES), r.choice(["", "not "]), r.choice(self.TESTS))
        if kind == 9:
            return "(%s).%s" % (sub(), r.choice(self.METHODS))
        if kind == 10:
            return "%s.%s" % (r.choice(self.NAMES), r.choice(self.METHODS))
        if kind == 11:
            return "(%s if %s else %s)" % (sub(), sub(), sub())
        if kind == 12:
            return "not (%s)" % sub()
        if kind == 13:
            return "[%s, %s]" % (sub(), sub())
        if kind == 14:
            return "%s.%s" % (r.choice(self.NAMES), r.choice(["a", "b", "name", "zz", "0.name", "C"]))
        return "'%s' %% %s" % (r.choice(["%s", "%d", "%5s|", "%r"]), r.choice(self.NAMES))

    def space(self):
        return self.r.choice(["", "", " ", "\n", "  ", "\n  ", " \n", "\n\n", "\t"])

    def tag(self, words):
        # A comma for what stands open: gaps, the words, gaps.
        return "{%%%s %s %s%%}" % (self.r.choice(self.GAPS), words, self.r.choice(self.GAPS))

    def show(self):
        left = self.r.choice(["", "", "-"])
        return "{{%s %s %s}}" % (left, self.expression(), self.r.choice(["", "", "-"]))

    def block(self, depth=0):
        r = self.r
        kind = r.randrange(13 if depth < 3 else 5)
        body = lambda: self.body(depth + 1)
        if kind < 2:
            return r.choice(["text", "a b", "<|x|>", "{", "}", "% ", "#"])
        if kind < 5:
            return self.show()
        if kind == 5:
            return self.tag("if " + self.expression()) + body() + self.tag("else") + body() + self.tag("endif")
        if kind == 6:
            return self.tag("if " + self.expression()) + body() + self.tag("endif")
        if kind == 7:
            return self.tag("for x in " + self.expression()) + body() + "{{ loop.index }}{{ loop.last }}" + self.tag("endfor")
        if kind == 8:
            return self.tag("for x in l if x > 1") + body() + self.tag("else") + body() + self.tag("endfor")
        if kind == 9:
            return self.tag("set %s = %s" % (r.choice("xy"), self.expression()))
        if kind == 10:
            return self.tag("set y") + body() + self.tag("endset")
        if kind == 11:
            return "{#%s c %s#}" % (r.choice(self.GAPS), r.choice(self.GAPS))
        return self.tag("macro m(x, y=1)") + body() + self.tag("endmacro") + "{{ m(%s) }}" % self.expression()

    def body(self, depth=0):
        return "".join(self.space() + self.block(depth) + self.space() for _ in range(self.r.randrange(1, 4)))


def random_cases(seed, n):
    for i in range(n):
        yield "random %d" % (seed + i), Maker(seed + i).body(), VALUES


# ---- comparing -------------------------------------------------------------------------------------------------------

# What Python shows with an address, or in another way than by its value, is nobody's to copy.
UNLIKE = ("object at 0x", "built-in method", "<function", "<class", "<bound method", "Macro '", "<Cycler", "<Joiner", "LoopContext",
          "<itertools", "reverseiterator", "<generator", "<map")
# More than 64 bits, and a set that is refused by name.
BEYOND = ("64 bits",)


def main():
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    n = int(sys.argv[3]) if len(sys.argv) > 3 else 300
    ours = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    n_same = n_refused = n_bad = 0
    for group in (style_cases(), small_cases(), random_cases(seed, n)):
        for name, words, values in group:
            expected = by_jinja2(words, values)
            ours.stdin.write(json.dumps({"template": words, "values": values}) + "\n")
            ours.stdin.flush()
            got = json.loads(ours.stdout.readline())
            if isinstance(expected, str) and any(mark in expected for mark in UNLIKE):
                continue
            if isinstance(expected, Exception) and "error" in got:
                n_refused += 1
            elif not isinstance(expected, Exception) and got.get("text") == expected:
                n_same += 1
            elif any(mark in got.get("error", "") for mark in BEYOND):
                continue
            else:
                n_bad += 1
                if n_bad <= 40:
                    print("%s\n  template %r\n  jinja2   %r\n  ours     %r" % (name, words, expected, got.get("text", got)))
    ours.stdin.close()
    if ours.wait() != 0:
        print("render_template ended with", ours.returncode)
        n_bad += 1
    print("%d the same, %d refused by both, %d not the same" % (n_same, n_refused, n_bad))
    return 1 if n_bad or n_same < 1000 else 0


if __name__ == "__main__":
    sys.exit(main())
