#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/text/pretokenizer_step.h"

/*
 * The patterns are those of the models' own tokenizer.json. Which name in a GGUF file stands for
 * which of them, and the rule `default`, are as in github.com/ggml-org/llama.cpp,
 * src/llama-vocab.cpp.
 */
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define SUFFIXES "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORD "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define SIGNS " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define SIGNS_AND_SLASHES " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LLAMA3 SUFFIXES "|" WORD "|\\p{N}{1,3}|" SIGNS "|" SPACES
#define QWEN2 SUFFIXES "|" WORD "|\\p{N}|" SIGNS "|" SPACES

/* Words in which a capital begins a new one: capitals, then small letters; one of them may be
 * empty. */
#define CAPITAL "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define SMALL "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define BEFORE "[^\\r\\n\\p{L}\\p{N}]?"
#define TEKKEN \
    BEFORE CAPITAL "*" SMALL "+|" BEFORE CAPITAL "+" SMALL "*|\\p{N}|" SIGNS_AND_SLASHES "|" SPACES
#define GPT4O                                                                        \
    BEFORE CAPITAL "*" SMALL "+" SUFFIXES "?|" BEFORE CAPITAL "+" SMALL "*" SUFFIXES \
                   "?|\\p{N}{1,3}|" SIGNS_AND_SLASHES "|" SPACES

#define DEEPSEEK_CJK "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"
#define DEEPSEEK3_WORDS                                     \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+" \
    "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES
#define BLOOM " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+"
#define DEEPSEEK_LETTERS                                                             \
    "\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}"         \
    "\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}"            \
    "\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}"    \
    "\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}"           \
    "\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}"   \
    "\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}"   \
    "\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}"   \
    "\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}"              \
    "\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}"             \
    "\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}"   \
    "\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}\\x{210A}-\\x{2113}"    \
    "\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}"     \
    "\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}"    \
    "\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}"    \
    "\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}"    \
    "\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}"   \
    "\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}" \
    "\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}"                \
    "\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"

/* `\s+$`, written so that a run of spaces is looked at once and not once from each of them. */
#define TRAILING_SPACES "(?<!\\s)\\s++\\z"

enum {
    MAX_PATTERNS = 8
};

/* How a kind of model cuts. */
typedef struct rule {
    const char *names; /* with a space between two */
    bool keeps_whole;
    bool wants_bos;
    const char *patterns[MAX_PATTERNS + 1]; /* ended by NULL */
} rule;

static const rule rules[] = {
    {"default",
     false,
     false,
     {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]", NULL}},
    {"gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum modern-bert mpt "
     "olmo jais trillion granite-docling exaone4",
     false,
     false,
     {GPT2, NULL}},
    {"smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
     false,
     false,
     {"\\p{N}", GPT2, NULL}},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2",
     true,
     true,
     {LLAMA3, NULL}},
    {"dbrx smaug-bpe glm4 chatglm-bpe", false, false, {LLAMA3, NULL}},
    {"qwen2 deepseek-r1-qwen kormo megrez stablelm2 hunyuan solar-open grok-2",
     false,
     false,
     {QWEN2, NULL}},
    {"qwen35",
     false,
     false,
     {SUFFIXES
      "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES,
      NULL}},
    {"falcon",
     false,
     false,
     {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]", NULL}},
    {"deepseek-llm",
     false,
     false,
     {"[\\r\\n]", "\\s?[A-Za-z" DEEPSEEK_LETTERS "]+",
      "\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+",
      TRAILING_SPACES, DEEPSEEK_CJK, "\\p{N}+", NULL}},
    {"deepseek-coder",
     false,
     false,
     {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", DEEPSEEK_CJK, "\\p{N}", NULL}},
    {"deepseek-v3 hunyuan-dense joyai-llm",
     false,
     false,
     {"\\p{N}{1,3}", "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+",
      DEEPSEEK3_WORDS, NULL}},
    {"tekken", true, true, {TEKKEN, NULL}},
    {"gpt-4o llama4 kanana2 minimax-m2", false, false, {GPT4O, NULL}},
    {"bloom poro-chat gpt3-finnish", false, false, {BLOOM, NULL}},
    {"viking", false, false, {BLOOM, "\\p{N}", NULL}},
    {"bailingmoe bailingmoe2 llada-moe",
     false,
     false,
     {"'(?i:[sdmt]|ll|ve|re)|" WORD "|\\p{N}|" SIGNS "|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+", NULL}},
    {"seed-coder",
     false,
     false,
     {SUFFIXES "|" WORD "|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" SPACES, NULL}},
};

enum {
    N_RULES = sizeof(rules) / sizeof(rules[0])
};

const char *const tsr_pretokenizer_gpt2 = GPT2;

static const rule *find_rule(const char *name, size_t n_bytes)
{
    for (int r = 0; r < N_RULES; r++) {
        for (const char *at = rules[r].names; *at != 0;) {
            const size_t word = strcspn(at, " ");

            if (word == n_bytes && memcmp(at, name, word) == 0) {
                return &rules[r];
            }
            at += word + strspn(at + word, " ");
        }
    }
    return NULL;
}

static tsr_status unknown_rule(const char *name, size_t n_bytes)
{
    char known[400] = "";
    size_t n = 0;

    for (int r = 0; r < N_RULES; r++) {
        const int word = (int)strcspn(rules[r].names, " ");

        n += (size_t)snprintf(known + n, sizeof(known) - n, "%s%.*s", r > 0 ? ", " : "", word,
                              rules[r].names);
    }
    return tsr_fail(TSR_ERR_UNSUPPORTED,
                    "unknown pre-tokenizer \"%.*s\" (tokenizer.ggml.pre); known are %s and aliases",
                    (int)(n_bytes < 40 ? n_bytes : 40), name, known);
}

tsr_status tsr_pretokenizer_create(tsr_pretokenizer **out, const char *name, size_t n_bytes)
{
    const rule *found = find_rule(name, n_bytes);
    tsr_status st = TSR_OK;
    tsr_pretokenizer *pre;

    if (found == NULL) {
        return unknown_rule(name, n_bytes);
    }
    pre = tsr_alloc(1, sizeof(*pre));
    if (pre == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "pre-tokenizer record");
    }
    pre->keeps_whole = found->keeps_whole;
    pre->wants_bos = found->wants_bos;
    for (int i = 0; i < MAX_PATTERNS && found->patterns[i] != NULL; i++) {
        const tsr_text_view pattern = {found->patterns[i], strlen(found->patterns[i])};
        tsr_cut_step *step;

        TSR_TRY_GOTO(st, fail, tsr_pretokenizer_add(pre, &step));
        TSR_TRY_GOTO(st, fail, tsr_finder_create(&step->finder, pattern, true));
    }
    *out = pre;
    return TSR_OK;

fail:
    tsr_pretokenizer_destroy(pre);
    return st;
}
