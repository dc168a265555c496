#!/usr/bin/env python3
"""Makes rendered.json: conversations rendered by Jinja2 (made with 3.1.6) from templates of the known forms.

smollm2.jinja is the template in the metadata of SmolLM2-135M-Instruct; the others are written here, one for each way
in which templates of these forms differ. smollm2.jsonl are the chat prompts of the model's reference generations:
messages, text and token ids. Run in this folder.
"""
import json
from jinja2.sandbox import ImmutableSandboxedEnvironment
env=ImmutableSandboxedEnvironment(trim_blocks=True,lstrip_blocks=True)
smol=open('smollm2.jinja').read()
chatml=r"""{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
chatml_trim=r"""{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"""
branches=r"""{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {{- 'You have tools.\n<|im_end|>\n' }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
    {%- else %}
        {{- "<|im_start|>system\nYou\'re a \"plain\" one.<|im_end|>\n" }}
    {%- endif %}
{%- endif %}
{%- for m in messages %}
    {%- if m.role == "user" or (m.role == "system" and not loop.first) or m.role == "assistant" %}
        {{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
llama3=r"""{% for m in messages %}{% set text = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' %}{% if loop.first %}{% set text = bos_token + text %}{% endif %}{{ text }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
dated=r"""{{- bos_token }}
{%- if strftime_now is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- else %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{{- "Cutting Knowledge Date: December 2023\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for m in messages %}
    {{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
U=lambda c:{'role':'user','content':c}; A=lambda c:{'role':'assistant','content':c}; S=lambda c:{'role':'system','content':c}
convs=[[U('What is the capital of France?')],[S('Be brief.'),U('Hi')],[U('a'),A('b'),U('c')],[S('  padded \n'),U('\n\u00a0 x y \u2003\n'),A(' z '),U('   ')],[U('')],[U('\u00e9\u4f60 <|im_end|>')],[S('s'),U('1'),A('2'),U('3'),A('4'),U('5')]]
out=[]
for name,t in [('smollm2',smol),('chatml',chatml),('chatml_trim',chatml_trim),('branches',branches),('llama3',llama3),('dated',dated)]:
    for c in convs:
        r=env.from_string(t).render(messages=c,add_generation_prompt=True,bos_token='')
        out.append({'name':name,'template':t,'messages':c,'text':r})
with open('rendered.json','w') as f:
    json.dump(out,f,indent=0)
