#!/usr/bin/env python3
"""Makes pieces.jsonl and tiny_*.json: texts cut and encoded by the Python package tokenizers (made with 0.23.3).

pieces.jsonl: each text with the bytes of its pieces under each rule; the rules are put together here from the
package's own pre-tokenizers, as the models' tokenizer.json have them (`default` and `viking` as in llama.cpp).
tiny_*.json: small trained vocabularies with texts and their ids. Give the folder of those models as argument:
for each a tokenizer.json and a tokenizer_reference.json with what the package made of the texts. Run in this folder.

smollm2.jsonl and smollm2_edge.jsonl are vectors of the vocabulary of SmolLM2-135M-Instruct: ids of the same package,
and in the second those of llama.cpp where the two differ.
"""
import json
import random
import sys
import unicodedata

from tokenizers import pre_tokenizers as P, Regex
random.seed(7)
GPT2=r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
L3=r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
Q2=r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
Q35=r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEK=r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
G4O=r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LET=r"\s?[A-Za-z"+"µÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"+"]+"
BLOOM=" ?[^(\\s|[.,!?…。，、।۔،])]+"
DS3=r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
BAIL=r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
SEED=r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
S=lambda r:P.Split(Regex(r),'isolated')
rules={
 'gpt-2':[S(GPT2)],
 'smollm':[P.Digits(True),S(GPT2)],
 'llama-bpe':[S(L3)],
 'qwen2':[S(Q2)],
 'qwen35':[S(Q35)],
 'falcon':[P.Punctuation('contiguous'),S(GPT2),P.Digits(False),S('[0-9][0-9][0-9]')],
 'default':[S(r"[\p{P}\$\+<=>\^~\|]+"),S(GPT2),S(r"\p{N}+"),S('[0-9][0-9][0-9]')],
 'deepseek-llm':[S('[\r\n]'),S(LET),S(r'\s?[!-/:-~！-／：-～‘-‟　-。]+'),S(r'\s+$'),S('[一-龥ࠀ-一가-퟿]+'),S(r'\p{N}+')],
 'deepseek-coder':[S('[\r\n]'),S(r'\s?\p{L}+'),S(r'\s?\p{P}+'),S('[一-龥ࠀ-一가-퟿]+'),P.Digits(True)],
 'deepseek-v3':[S(r'\p{N}{1,3}'),S('[一-龥぀-ゟ゠-ヿ]+'),S(DS3)],
 'tekken':[S(TEK)],'gpt-4o':[S(G4O)],'bloom':[S(BLOOM)],'viking':[S(BLOOM),P.Digits(True)],
 'bailingmoe':[S(BAIL)],'seed-coder':[S(SEED)],
}
fixed=["","Hello, world!  It's 2024\n\n  x","don't DON'T I'LL we'Ve 's","1234567 12 1  22   333","a\t\tb \n c\r\n\r\n d   ","caf\u00e9 na\u00efve \u00dcber \u4f60\u597d\u4e16\u754c\u3002\u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4","\u00a0x\u3000y\u2003 z\u0085w\u180ea\u200bb","\u0661\u0662\u0663 \u2460\u00bd \u216b","e\u0301\u0302x \u0928\u092e\u0938\u094d\u0924\u0947","$5.00 <=> ^~|` @foo #bar_baz","CamelCaseHTTPServer iPhone XMLHttp","foo/bar\n//x\n/","'\u017f it'\u017f \u212aelvin","\U0001f600\U0001f468\u200d\U0001f469 !!!\n??","   ","\n\n\n","  \n  \n  ab","x  ","   9","(a.b,c!d?e\u2026f)|g","\u3042\u30a2\u6f22\u5b57 1\u4e002","\u1c90\u10a0\u1f7d\u2126 \u01c5x","\u001c\u001d a"]
alpha=list("abzAQ019 .,!'\"(-_/$|`\n\r\t")+["  "," ","'s","'LL","é","ß","Ж","漢","あ","한","١","½","Ⅻ","\u0301","\u00a0","\u3000","\u2028","…","。","،","😀","ǅ","ª","\u180e","\u200b","“","€","𐐀"]
texts=fixed+[''.join(random.choice(alpha) for _ in range(random.randint(1,24))) for _ in range(220)]
seqs={k:P.Sequence(v) for k,v in rules.items()}
with open('pieces.jsonl','w') as f:
    for t in texts:
        cuts={}
        for name,pt in seqs.items():
            ps=[p for p,_ in pt.pre_tokenize_str(t)]
            assert ''.join(ps)==t,(name,t,ps)
            cuts[name]=[len(p.encode()) for p in ps]
        f.write(json.dumps({'text':t,'cuts':cuts},ensure_ascii=True,separators=(',',':'))+'\n')
if len(sys.argv) < 2:
    sys.exit('pieces.jsonl is made; give the folder of the models for tiny_*.json')
for m,pre in [('gpt2','gpt-2'),('cohere','command-r'),('falcon7b','falcon'),('qwen2','qwen2'),('llama3','llama-bpe'),('bloom','bloom')]:
    d=json.load(open(f'{sys.argv[1]}/{m}/tokenizer.json')); r=json.load(open(f'{sys.argv[1]}/{m}/tokenizer_reference.json'))
    n=max(list(d['model']['vocab'].values())+[a['id'] for a in d['added_tokens']])+1
    toks=[None]*n; types=[1]*n
    for t,i in d['model']['vocab'].items(): toks[i]=t
    for a in d['added_tokens']: toks[a['id']]=a['content']; types[a['id']]=3 if a['special'] else 4
    for i in range(n):
        if toks[i] is None: toks[i]='[PAD%d]'%i; types[i]=5
    merges=[x if isinstance(x,str) else ' '.join(x) for x in d['model']['merges']]
    enc=[{'text':e['text'],'ids':e['ids_without_special'],'decoded':e['decoded']} for e in r['encode'] if d['normalizer'] is None or unicodedata.normalize('NFC',e['text'])==e['text']]
    json.dump({'pre':pre,'tokens':toks,'types':types,'merges':merges,'encode':enc},open('tiny_%s.json'%m,'w'),ensure_ascii=True,separators=(',',':'))
    print(m,n,len(enc),len(r['encode']))
