#include "engine/gguf_value.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    SHOWN_ELEMS = 4,  // of an array, when a value is put in words
    SHOWN_BYTES = 48, // of a string among them
    WIDEST_ESCAPE = 4
};

static const struct {
    const char *name;
    size_t n_bytes;
} kinds[TSR_GGUF_KIND_COUNT] = {
    [TSR_GGUF_KIND_U8] = {"u8", 1},         [TSR_GGUF_KIND_I8] = {"i8", 1},
    [TSR_GGUF_KIND_U16] = {"u16", 2},       [TSR_GGUF_KIND_I16] = {"i16", 2},
    [TSR_GGUF_KIND_U32] = {"u32", 4},       [TSR_GGUF_KIND_I32] = {"i32", 4},
    [TSR_GGUF_KIND_F32] = {"f32", 4},       [TSR_GGUF_KIND_BOOL] = {"bool", 1},
    [TSR_GGUF_KIND_STRING] = {"string", 0}, [TSR_GGUF_KIND_ARRAY] = {"array", 0},
    [TSR_GGUF_KIND_U64] = {"u64", 8},       [TSR_GGUF_KIND_I64] = {"i64", 8},
    [TSR_GGUF_KIND_F64] = {"f64", 8},
};

size_t tsr_gguf_value_bytes(tsr_gguf_kind kind)
{
    return kinds[kind].n_bytes;
}

const char *tsr_gguf_value_kind_name(tsr_gguf_kind kind)
{
    return kinds[kind].name;
}

uint32_t tsr_gguf_value_load_u32(const uint8_t *bytes)
{
    uint32_t value;

    memcpy(&value, bytes, sizeof(value)); // the host is little-endian, as the file is
    return value;
}

uint64_t tsr_gguf_value_load_u64(const uint8_t *bytes)
{
    uint64_t value;

    memcpy(&value, bytes, sizeof(value));
    return value;
}

bool tsr_gguf_value_int(const tsr_gguf_value *value, int64_t *out)
{
    const size_t n_bytes = tsr_gguf_value_bytes(value->kind);
    uint64_t bits = 0;

    switch (value->kind) {
    case TSR_GGUF_KIND_U8:
    case TSR_GGUF_KIND_U16:
    case TSR_GGUF_KIND_U32:
    case TSR_GGUF_KIND_U64:
        memcpy(&bits, value->bytes, n_bytes);
        if (bits > INT64_MAX) {
            return false;
        }
        *out = (int64_t)bits;
        return true;
    case TSR_GGUF_KIND_I8:
    case TSR_GGUF_KIND_I16:
    case TSR_GGUF_KIND_I32:
    case TSR_GGUF_KIND_I64: {
        const uint64_t sign = UINT64_C(1) << (8 * n_bytes - 1);

        memcpy(&bits, value->bytes, n_bytes);
        *out = (int64_t)((bits ^ sign) - sign); // carries the sign up
        return true;
    }
    default:
        return false;
    }
}

bool tsr_gguf_value_float(const tsr_gguf_value *value, double *out)
{
    int64_t whole;
    float single;

    if (value->kind == TSR_GGUF_KIND_F64) {
        memcpy(out, value->bytes, sizeof(*out));
        return true;
    }
    if (value->kind == TSR_GGUF_KIND_F32) {
        memcpy(&single, value->bytes, sizeof(single));
        *out = (double)single;
        return true;
    }
    if (tsr_gguf_value_int(value, &whole)) {
        *out = (double)whole;
        return true;
    }
    return false;
}

bool tsr_gguf_value_bool(const tsr_gguf_value *value, bool *out)
{
    if (value->kind != TSR_GGUF_KIND_BOOL) {
        return false;
    }
    *out = value->bytes[0] != 0;
    return true;
}

bool tsr_gguf_value_string(const tsr_gguf_value *value, tsr_gguf_text *out)
{
    if (value->kind != TSR_GGUF_KIND_STRING) {
        return false;
    }
    out->bytes = (const char *)value->bytes + sizeof(uint64_t);
    out->n_bytes = (size_t)tsr_gguf_value_load_u64(value->bytes);
    return true;
}

bool tsr_gguf_value_elem(const tsr_gguf_value *array, int64_t i, tsr_gguf_value *out)
{
    uint64_t at;

    if (array->kind != TSR_GGUF_KIND_ARRAY || array->elem_kind == TSR_GGUF_KIND_ARRAY || i < 0 ||
        (uint64_t)i >= array->n_elems) {
        return false;
    }
    at = array->elem_kind == TSR_GGUF_KIND_STRING
             ? array->string_at[i]
             : (uint64_t)i * tsr_gguf_value_bytes(array->elem_kind);
    *out = (tsr_gguf_value){.kind = array->elem_kind, .bytes = array->bytes + at};
    return true;
}

/* How one byte is shown: itself, or an escape. UTF-8 passes as it is. */
static void show_byte(char shown[WIDEST_ESCAPE + 1], unsigned char byte)
{
    if (byte == '\n' || byte == '\t' || byte == '\r') {
        (void)snprintf(shown, WIDEST_ESCAPE + 1, "\\%c",
                       byte == '\n'   ? 'n'
                       : byte == '\t' ? 't'
                                      : 'r');
    } else if (byte == '"' || byte == '\\') {
        (void)snprintf(shown, WIDEST_ESCAPE + 1, "\\%c", byte);
    } else if (byte < 0x20 || byte == 0x7F) {
        (void)snprintf(shown, WIDEST_ESCAPE + 1, "\\x%02x", byte);
    } else {
        shown[0] = (char)byte;
        shown[1] = '\0';
    }
}

void tsr_gguf_value_quote(tsr_gguf_text quoted, char *text, size_t text_bytes)
{
    static const char cut[] = "\"...";
    size_t n = 0;

    if (text_bytes <= sizeof(cut)) {
        (void)snprintf(text, text_bytes, "...");
        return;
    }
    text[n++] = '"';
    for (size_t i = 0; i < quoted.n_bytes; i++) {
        char shown[WIDEST_ESCAPE + 1];
        size_t n_shown;

        show_byte(shown, (unsigned char)quoted.bytes[i]);
        n_shown = strlen(shown);
        if (n + n_shown + sizeof(cut) > text_bytes) {
            // A character begun and not finished is not shown at all.
            while (n > 1 && ((unsigned char)quoted.bytes[i] & 0xC0) == 0x80) {
                i--;
                n--;
            }
            memcpy(text + n, cut, sizeof(cut));
            return;
        }
        memcpy(text + n, shown, n_shown);
        n += n_shown;
    }
    text[n++] = '"';
    text[n] = '\0';
}

static void describe_array(const tsr_gguf_value *array, char *text, size_t text_bytes)
{
    tsr_gguf_value elem;
    size_t n;
    int64_t i = 0;

    n = (size_t)snprintf(text, text_bytes, "%" PRIu64 " x %s", array->n_elems,
                         tsr_gguf_value_kind_name(array->elem_kind));
    for (; i < SHOWN_ELEMS && n < text_bytes && tsr_gguf_value_elem(array, i, &elem); i++) {
        char shown[SHOWN_BYTES];

        tsr_gguf_value_describe(&elem, shown, sizeof(shown));
        n += (size_t)snprintf(text + n, text_bytes - n, "%s %s", i == 0 ? ":" : ",", shown);
    }
    if (i > 0 && (uint64_t)i < array->n_elems && n < text_bytes) {
        (void)snprintf(text + n, text_bytes - n, ", ...");
    }
}

void tsr_gguf_value_describe(const tsr_gguf_value *value, char *text, size_t text_bytes)
{
    tsr_gguf_text string;
    int64_t whole;
    double number;
    bool truth;

    if (tsr_gguf_value_string(value, &string)) {
        tsr_gguf_value_quote(string, text, text_bytes);
    } else if (value->kind == TSR_GGUF_KIND_ARRAY) {
        describe_array(value, text, text_bytes);
    } else if (tsr_gguf_value_bool(value, &truth)) {
        (void)snprintf(text, text_bytes, "%s", truth ? "true" : "false");
    } else if (tsr_gguf_value_int(value, &whole)) {
        (void)snprintf(text, text_bytes, "%" PRId64, whole);
    } else if (tsr_gguf_value_float(value, &number)) {
        (void)snprintf(text, text_bytes, "%g", number);
    } else { // a u64 beyond int64_t
        (void)snprintf(text, text_bytes, "%" PRIu64, tsr_gguf_value_load_u64(value->bytes));
    }
}
