#include "engine/text/charsmap.h"

#include <string.h>
#include <utf8proc.h>

#include "base/alloc.h"
#include "base/utf8.h"

enum {
    LONG_GRAPHEME = 6 // bytes; graphemes from here on are looked up by their characters only
};

struct tsr_charsmap {
    uint8_t *bytes;       // the whole table; owned
    size_t n_units;       // of the trie, from byte 4 on
    const char *texts;    // behind the trie, in bytes
    size_t n_texts_bytes; // with a zero behind them
};

static int base64_digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c != 0 ? strchr(digits, c) : NULL;

    return at != NULL ? (int)(at - digits) : -1;
}

static tsr_status read_base64(uint8_t *out, size_t *n_out, tsr_text_view base64)
{
    uint32_t bits = 0;
    int n_bits = 0;

    while (base64.n_bytes > 0 && base64.bytes[base64.n_bytes - 1] == '=') {
        base64.n_bytes--;
    }
    *n_out = 0;
    for (size_t i = 0; i < base64.n_bytes; i++) {
        const int digit = base64_digit(base64.bytes[i]);

        if (digit < 0) {
            return tsr_fail(TSR_ERR_FORMAT, "tokenizer.json: precompiled_charsmap is no base64");
        }
        bits = bits << 6 | (uint32_t)digit;
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            out[(*n_out)++] = (uint8_t)(bits >> n_bits);
        }
    }
    return TSR_OK;
}

static uint32_t read_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

tsr_status tsr_charsmap_create(tsr_charsmap **out, tsr_text_view base64)
{
    tsr_charsmap *map = tsr_alloc(1, sizeof(*map));
    tsr_status st = TSR_OK;
    size_t n_bytes = 0;
    size_t trie_bytes;

    if (map == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "charsmap record");
    }
    map->bytes = tsr_alloc(base64.n_bytes + 1, 1); // its last byte stays 0
    if (map->bytes == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "a charsmap of %zu bytes", base64.n_bytes);
        goto fail;
    }
    TSR_TRY_GOTO(st, fail, read_base64(map->bytes, &n_bytes, base64));
    trie_bytes = n_bytes >= 4 ? read_u32(map->bytes) : 0;
    if (n_bytes < 8 || trie_bytes < 4 || trie_bytes % 4 != 0 || trie_bytes > n_bytes - 4) {
        st = tsr_fail(TSR_ERR_FORMAT,
                      "tokenizer.json: precompiled_charsmap has %zu bytes, a trie "
                      "of %zu among them",
                      n_bytes, trie_bytes);
        goto fail;
    }
    map->n_units = trie_bytes / 4;
    map->texts = (const char *)map->bytes + 4 + trie_bytes;
    map->n_texts_bytes = n_bytes - 4 - trie_bytes;
    *out = map;
    return TSR_OK;

fail:
    tsr_charsmap_destroy(map);
    return st;
}

void tsr_charsmap_destroy(tsr_charsmap *charsmap)
{
    if (charsmap == NULL) {
        return;
    }
    tsr_free(charsmap->bytes);
    tsr_free(charsmap);
}

/* A unit of the trie; 0, which leads nowhere, where there is none. */
static uint32_t unit_at(const tsr_charsmap *map, size_t i)
{
    return i < map->n_units ? read_u32(map->bytes + 4 + 4 * i) : 0;
}

static size_t offset_of(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & (1U << 9)) >> 6);
}

/* What the shortest entry that text begins with becomes; false if there is none. */
static bool look_up(const tsr_charsmap *map, tsr_text_view *out, const char *text, size_t n_bytes)
{
    size_t at = offset_of(unit_at(map, 0));

    for (size_t i = 0; i < n_bytes && text[i] != 0; i++) {
        uint32_t unit;

        at ^= (uint8_t)text[i];
        unit = unit_at(map, at);
        if ((unit & ((1U << 31) | 0xff)) != (uint8_t)text[i]) {
            return false;
        }
        at ^= offset_of(unit);
        if ((unit >> 8 & 1) != 0) {
            const size_t start = unit_at(map, at) & 0x7fffffff;

            if (start > map->n_texts_bytes) {
                return false;
            }
            *out = (tsr_text_view){map->texts + start, strlen(map->texts + start)};
            return true;
        }
    }
    return false;
}

static tsr_status apply_characters(const tsr_charsmap *map, tsr_text *out, const char *text,
                                   size_t n_bytes)
{
    for (size_t at = 0; at < n_bytes;) {
        const int measured = tsr_utf8_measure(text + at, n_bytes - at);
        const size_t n = measured > 0 ? (size_t)measured : 1;
        tsr_text_view found = {text + at, n};

        (void)look_up(map, &found, text + at, n);
        TSR_TRY(tsr_text_append(out, found.bytes, found.n_bytes));
        at += n;
    }
    return TSR_OK;
}

tsr_status tsr_charsmap_apply(const tsr_charsmap *charsmap, tsr_text *out, tsr_text_view text)
{
    for (size_t at = 0; at < text.n_bytes;) {
        utf8proc_int32_t state = 0;
        utf8proc_int32_t last = (utf8proc_int32_t)tsr_utf8_decode(text.bytes + at);
        tsr_text_view found = {NULL, 0};
        size_t end = at + (size_t)tsr_utf8_measure(text.bytes + at, text.n_bytes - at);

        while (end < text.n_bytes) {
            const utf8proc_int32_t next = (utf8proc_int32_t)tsr_utf8_decode(text.bytes + end);

            if (utf8proc_grapheme_break_stateful(last, next, &state)) {
                break;
            }
            last = next;
            end += (size_t)tsr_utf8_measure(text.bytes + end, text.n_bytes - end);
        }
        if (end - at < LONG_GRAPHEME && look_up(charsmap, &found, text.bytes + at, end - at)) {
            TSR_TRY(tsr_text_append(out, found.bytes, found.n_bytes));
        } else {
            TSR_TRY(apply_characters(charsmap, out, text.bytes + at, end - at));
        }
        at = end;
    }
    return TSR_OK;
}
