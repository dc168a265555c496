#include "engine/text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/text.h"
#include "base/utf8.h"

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
    MAX_PATTERNS = 8,

    // Our patterns look at each letter a few times; this ends what a new one might do, in about a
    // second, and is far above what a text of a hundred megabytes needs.
    MATCH_LIMIT = 400000000
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

struct tsr_pretokenizer {
    const rule *rule;
    int n_patterns;
    pcre2_general_context *heap; /* owned, as all below: PCRE2 by way of base/alloc.h */
    pcre2_match_context *limits;
    pcre2_code *codes[MAX_PATTERNS];
    bool has_jit[MAX_PATTERNS];
};

/* ---- making ------------------------------------------------------------------------------------
 */

// Tells a lack of memory from a system that forbids making code at run time: PCRE2 has one answer
// for both, but the first is an error and the second only slower.
static _Thread_local bool ran_out;

static void *heap_take(PCRE2_SIZE n_bytes, void *unused)
{
    void *block = tsr_alloc(n_bytes, 1);

    (void)unused;
    ran_out |= block == NULL;
    return block;
}

static void heap_give(void *block, void *unused)
{
    (void)unused;
    tsr_free(block);
}

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

/*
 * A pattern as PCRE2 is to read it. The models mean Unicode's White_Space by \s; PCRE2's own \s
 * also has U+180E, so the class is written out.
 */
static tsr_status write_out_spaces(tsr_text *out, const char *pattern)
{
    static const char spaces[] = "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}"
                                 "\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}";
    bool in_class = false;

    for (const char *at = pattern; *at != 0; at++) {
        const bool escaped = at[0] == '\\';

        if (escaped && (at[1] == 's' || at[1] == 'S')) {
            const char *open = at[1] == 'S' ? "[^" : "[";

            TSR_TRY(tsr_text_append(out, open, in_class ? 0 : strlen(open)));
            TSR_TRY(tsr_text_append(out, spaces, sizeof(spaces) - 1));
            TSR_TRY(tsr_text_append(out, "]", in_class ? 0 : 1));
            at++;
            continue;
        }
        if (!escaped && (*at == '[' || *at == ']')) {
            in_class = *at == '[';
        }
        TSR_TRY(tsr_text_append(out, at, escaped ? 2 : 1));
        at += escaped;
    }
    return TSR_OK;
}

static tsr_status compile_text(tsr_pretokenizer *pre, pcre2_compile_context *with, int i,
                               const tsr_text *pattern)
{
    int code;
    PCRE2_SIZE at;

    ran_out = false;
    pre->codes[i] = pcre2_compile((PCRE2_SPTR)pattern->bytes, pattern->n_bytes,
                                  PCRE2_UTF | PCRE2_UCP, &code, &at, with);
    if (pre->codes[i] == NULL && ran_out) {
        return tsr_fail(TSR_ERR_NOMEM, "pre-tokenizer pattern %d", i);
    }
    if (pre->codes[i] == NULL) {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "this PCRE2 refuses pre-tokenizer pattern %d at %zu with error %d", i,
                        (size_t)at, code);
    }
    pre->has_jit[i] = pcre2_jit_compile(pre->codes[i], PCRE2_JIT_COMPLETE) == 0;
    if (!pre->has_jit[i] && ran_out) {
        return tsr_fail(TSR_ERR_NOMEM, "pre-tokenizer pattern %d", i);
    }
    if (!pre->has_jit[i]) {
        tsr_log_info("no just-in-time compiler for patterns here: tokenizing is slower");
    }
    return TSR_OK;
}

static tsr_status compile_all(tsr_pretokenizer *pre)
{
    pcre2_compile_context *with = pcre2_compile_context_create(pre->heap);
    tsr_status st = TSR_OK;

    if (with == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "pre-tokenizer patterns");
    }
    for (int i = 0; i < MAX_PATTERNS && pre->rule->patterns[i] != NULL && st == TSR_OK; i++) {
        tsr_text pattern = {0};

        st = write_out_spaces(&pattern, pre->rule->patterns[i]);
        if (st == TSR_OK) {
            st = compile_text(pre, with, i, &pattern);
        }
        tsr_text_clear(&pattern);
        pre->n_patterns = i + 1;
    }
    pcre2_compile_context_free(with);
    return st;
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
    pre->rule = found;
    pre->heap = pcre2_general_context_create(heap_take, heap_give, NULL);
    pre->limits = pre->heap != NULL ? pcre2_match_context_create(pre->heap) : NULL;
    if (pre->limits == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "pre-tokenizer");
        goto fail;
    }
    pcre2_set_match_limit(pre->limits, MATCH_LIMIT);
    TSR_TRY_GOTO(st, fail, compile_all(pre));
    *out = pre;
    return TSR_OK;

fail:
    tsr_pretokenizer_destroy(pre);
    return st;
}

void tsr_pretokenizer_destroy(tsr_pretokenizer *pretokenizer)
{
    if (pretokenizer == NULL) {
        return;
    }
    for (int i = 0; i < MAX_PATTERNS; i++) {
        pcre2_code_free(pretokenizer->codes[i]);
    }
    pcre2_match_context_free(pretokenizer->limits);
    pcre2_general_context_free(pretokenizer->heap);
    tsr_free(pretokenizer);
}

bool tsr_pretokenizer_keeps_whole(const tsr_pretokenizer *pretokenizer)
{
    return pretokenizer->rule->keeps_whole;
}

bool tsr_pretokenizer_wants_bos(const tsr_pretokenizer *pretokenizer)
{
    return pretokenizer->rule->wants_bos;
}

/* ---- cutting -----------------------------------------------------------------------------------
 */

typedef struct cut {
    const tsr_pretokenizer *pre;
    pcre2_match_data
        *found; /* one for all patterns: each match is read before the next is sought */
    tsr_pretokenizer_piece *take;
    void *state;
} cut;

/* The next match at or after `from`: [*start, *end), which is [n_bytes, n_bytes) if there is none.
 */
static tsr_status next_match(const cut *c, int pattern, const char *text, size_t n_bytes,
                             size_t from, size_t *start, size_t *end)
{
    const tsr_pretokenizer *pre = c->pre;
    const PCRE2_SIZE *place = pcre2_get_ovector_pointer(c->found);
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;

    // The text is known to be valid UTF-8; to have it checked before each match would be quadratic.
    if (pre->has_jit[pattern]) {
        rc = pcre2_jit_match(pre->codes[pattern], (PCRE2_SPTR)text, n_bytes, from, 0, c->found,
                             pre->limits);
    }
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) { // the interpreter keeps its stack on the heap
        rc = pcre2_match(pre->codes[pattern], (PCRE2_SPTR)text, n_bytes, from,
                         PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, c->found, pre->limits);
    }
    if (rc == PCRE2_ERROR_NOMEMORY) {
        return tsr_fail(TSR_ERR_NOMEM, "no room to cut a text of %zu bytes", n_bytes);
    }
    // A limit that is reached counts as no match: what is left stays one piece.
    *start = rc >= 0 && place[1] > place[0] ? place[0] : n_bytes;
    *end = rc >= 0 && place[1] > place[0] ? place[1] : n_bytes;
    return TSR_OK;
}

/* Cut a text by this pattern and each piece by those after it. */
static tsr_status cut_by(const cut *c, int pattern, const char *text, size_t n_bytes)
{
    if (pattern == c->pre->n_patterns) {
        return c->take(c->state, text, n_bytes);
    }
    for (size_t at = 0; at < n_bytes;) {
        size_t start = n_bytes;
        size_t end = n_bytes;

        TSR_TRY(next_match(c, pattern, text, n_bytes, at, &start, &end));
        if (start > at) {
            TSR_TRY(cut_by(c, pattern + 1, text + at, start - at));
        }
        if (end > start) {
            TSR_TRY(cut_by(c, pattern + 1, text + start, end - start));
        }
        at = end;
    }
    return TSR_OK;
}

tsr_status tsr_pretokenizer_split(const tsr_pretokenizer *pretokenizer, const char *text,
                                  size_t n_bytes, tsr_pretokenizer_piece *take, void *state)
{
    cut c = {.pre = pretokenizer, .take = take, .state = state};
    tsr_status st = TSR_OK;

    c.found = pcre2_match_data_create(1, pretokenizer->heap);
    if (c.found == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no room to cut a text of %zu bytes", n_bytes);
    }
    for (size_t at = 0; at < n_bytes && st == TSR_OK;) {
        const size_t valid = tsr_utf8_valid(text + at, n_bytes - at);

        if (valid > 0) {
            st = cut_by(&c, 0, text + at, valid);
            at += valid;
        } else {
            st = take(state, text + at, 1);
            at++;
        }
    }
    pcre2_match_data_free(c.found);
    return st;
}
