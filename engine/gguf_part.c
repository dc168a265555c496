#include "engine/gguf_part.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

enum {
    MIN_KEY_BYTES = 8 + 1 + 4 + 1,            // length, name of one byte, kind, smallest value
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8, // length, name, n_dims, one dim, type, offset
    MAX_NAME_BYTES = 65535,
    MAX_ARRAY_DEPTH = 4,
    MAX_DIMS = 4,
    DEFAULT_ALIGNMENT = 32,
    QUOTE_BYTES = 88,
    WHAT_BYTES = QUOTE_BYTES + 24
};

/* A place in the file that moves forward, and what is being read there, for messages. */
typedef struct cursor {
    const tsr_gguf_part *part;
    uint64_t at;
    char what[WHAT_BYTES];
} cursor;

static uint64_t left(const cursor *c)
{
    return c->part->n_bytes - c->at;
}

static const uint8_t *here(const cursor *c)
{
    return c->part->bytes + c->at;
}

/* Step over n_bytes that began here, if the file has them. */
static tsr_status take(cursor *c, uint64_t n_bytes)
{
    if (n_bytes > left(c)) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s is cut short: %s needs %" PRIu64 " bytes at byte %" PRIu64
                        ", but the file has %zu",
                        c->part->label, c->what, n_bytes, c->at, c->part->n_bytes);
    }
    c->at += n_bytes;
    return TSR_OK;
}

static tsr_status take_u32(cursor *c, uint32_t *out)
{
    const uint8_t *bytes = here(c);

    TSR_TRY(take(c, sizeof(*out)));
    *out = tsr_gguf_value_load_u32(bytes);
    return TSR_OK;
}

static tsr_status take_u64(cursor *c, uint64_t *out)
{
    const uint8_t *bytes = here(c);

    TSR_TRY(take(c, sizeof(*out)));
    *out = tsr_gguf_value_load_u64(bytes);
    return TSR_OK;
}

static tsr_status take_text(cursor *c, tsr_gguf_text *out)
{
    uint64_t n_bytes;

    TSR_TRY(take_u64(c, &n_bytes));
    *out = (tsr_gguf_text){(const char *)here(c), (size_t)n_bytes};
    return take(c, n_bytes);
}

/* The name of a key or a tensor. From here on messages about it say `noun "name"`. */
static tsr_status take_name(cursor *c, tsr_gguf_text *out, const char *noun)
{
    char quoted[QUOTE_BYTES];

    TSR_TRY(take_text(c, out));
    if (out->n_bytes == 0 || out->n_bytes > MAX_NAME_BYTES) {
        return tsr_fail(TSR_ERR_FORMAT, "%s: %s has a name of %zu bytes; 1 to %d are allowed",
                        c->part->label, c->what, out->n_bytes, MAX_NAME_BYTES);
    }
    tsr_gguf_value_quote(*out, quoted, sizeof(quoted));
    (void)snprintf(c->what, sizeof(c->what), "%s %s", noun, quoted);
    return TSR_OK;
}

/* A count of things of at least min_bytes each, refused when the rest of the file cannot hold them.
 */
static tsr_status take_count(cursor *c, uint64_t *out, uint64_t min_bytes, const char *things)
{
    TSR_TRY(take_u64(c, out));
    if (*out > left(c) / min_bytes) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s: %s claims %" PRIu64 " %s, but only %" PRIu64
                        " bytes of the file follow",
                        c->part->label, c->what, *out, things, left(c));
    }
    return TSR_OK;
}

/* ---- metadata ----------------------------------------------------------------------------------
 */

static tsr_status take_kind(cursor *c, tsr_gguf_kind *out)
{
    uint32_t kind;

    TSR_TRY(take_u32(c, &kind));
    if (kind >= TSR_GGUF_KIND_COUNT) {
        return tsr_fail(TSR_ERR_FORMAT, "%s: %s has a value of unknown kind %" PRIu32,
                        c->part->label, c->what, kind);
    }
    *out = (tsr_gguf_kind)kind;
    return TSR_OK;
}

/* Step over n values of one kind that lie one behind another, checking each. */
static tsr_status skip_values(cursor *c, tsr_gguf_kind kind, uint64_t n, int depth)
{
    const size_t n_bytes = tsr_gguf_value_bytes(kind);
    const uint8_t *bytes = here(c);
    tsr_gguf_text text;

    if (n_bytes > 0) {
        TSR_TRY(take(c, n * n_bytes)); // take_count bounded n
        for (uint64_t i = 0; kind == TSR_GGUF_KIND_BOOL && i < n; i++) {
            if (bytes[i] > 1) {
                return tsr_fail(TSR_ERR_FORMAT, "%s: %s has a bool of value %d; 0 and 1 are known",
                                c->part->label, c->what, bytes[i]);
            }
        }
        return TSR_OK;
    }
    for (uint64_t i = 0; i < n; i++) {
        tsr_gguf_kind elem_kind;
        uint64_t n_elems;

        if (kind == TSR_GGUF_KIND_STRING) {
            TSR_TRY(take_text(c, &text));
            continue;
        }
        if (depth == MAX_ARRAY_DEPTH) {
            return tsr_fail(TSR_ERR_UNSUPPORTED, "%s: %s has arrays within arrays, %d deep",
                            c->part->label, c->what, depth + 1);
        }
        TSR_TRY(take_kind(c, &elem_kind));
        TSR_TRY(take_count(c, &n_elems, 1, "elements"));
        TSR_TRY(skip_values(c, elem_kind, n_elems, depth + 1));
    }
    return TSR_OK;
}

/* Where the strings of an array begin. Only after skip_values has walked them. */
static tsr_status index_strings(const cursor *c, tsr_gguf_value *array)
{
    uint64_t at = 0;

    // 8 bytes a string, which itself takes 8 bytes of the file or more.
    array->string_at = tsr_alloc(array->n_elems, sizeof(*array->string_at));
    if (array->string_at == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "%s: no memory for an index of %" PRIu64 " strings",
                        c->part->label, array->n_elems);
    }
    for (uint64_t i = 0; i < array->n_elems; i++) {
        array->string_at[i] = at;
        at += sizeof(uint64_t) + tsr_gguf_value_load_u64(array->bytes + at);
    }
    return TSR_OK;
}

static tsr_status take_value(cursor *c, tsr_gguf_value *out)
{
    TSR_TRY(take_kind(c, &out->kind));
    if (out->kind != TSR_GGUF_KIND_ARRAY) {
        out->bytes = here(c);
        return skip_values(c, out->kind, 1, 0);
    }
    TSR_TRY(take_kind(c, &out->elem_kind));
    TSR_TRY(take_count(c, &out->n_elems, 1, "elements"));
    out->bytes = here(c);
    TSR_TRY(skip_values(c, out->elem_kind, out->n_elems, 1));
    return out->elem_kind == TSR_GGUF_KIND_STRING ? index_strings(c, out) : TSR_OK;
}

/*
 * Room for one more element of a table of n. Tables grow with what has been read and not to what
 * the header claims, so that a lie about a huge file costs nothing.
 */
static tsr_status grow(const cursor *c, void **table, int n, size_t elem_bytes)
{
    void *grown;

    if ((n & (n - 1)) != 0) { // the table has room up to the next power of two
        return TSR_OK;
    }
    grown = tsr_alloc_resize(*table, n > 0 ? 2 * (size_t)n : 1, elem_bytes);
    if (grown == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "%s: no memory for a table of more than %d entries",
                        c->part->label, n);
    }
    *table = grown;
    return TSR_OK;
}

static tsr_status read_keys(tsr_gguf_part *part, cursor *c, int n_keys)
{
    const tsr_gguf_name *twin;

    for (int i = 0; i < n_keys; i++) {
        void *table = part->keys;
        tsr_gguf_key *key;

        TSR_TRY(grow(c, &table, i, sizeof(*part->keys)));
        part->keys = table;
        key = &part->keys[i];
        *key = (tsr_gguf_key){0};
        part->n_keys = i + 1;
        (void)snprintf(c->what, sizeof(c->what), "key %d of %d", i + 1, n_keys);
        TSR_TRY(take_name(c, &key->name, "key"));
        TSR_TRY(take_value(c, &key->value));
    }
    TSR_TRY(tsr_gguf_names_init(&part->names, n_keys));
    for (int i = 0; i < n_keys; i++) {
        part->names.sorted[i] = (tsr_gguf_name){part->keys[i].name, i};
    }
    twin = tsr_gguf_names_sort(&part->names);
    if (twin != NULL) {
        char quoted[QUOTE_BYTES];

        tsr_gguf_value_quote(twin->text, quoted, sizeof(quoted));
        return tsr_fail(TSR_ERR_FORMAT, "%s has the key %s twice", part->label, quoted);
    }
    return TSR_OK;
}

/* ---- tensors -----------------------------------------------------------------------------------
 */

static tsr_status encoding_of_type(const cursor *c, tsr_encoding *out, uint32_t type)
{
    static const struct {
        const char *unsupported; // the name of a type that has a number and no decoder here
        tsr_encoding encoding;
    } types[] = {
        [0] = {NULL, TSR_ENCODING_F32},
        [1] = {NULL, TSR_ENCODING_F16},
        [2] = {NULL, TSR_ENCODING_Q4_0},
        [3] = {NULL, TSR_ENCODING_Q4_1},
        [4] = {"Q4_2", 0},
        [5] = {"Q4_3", 0},
        [6] = {NULL, TSR_ENCODING_Q5_0},
        [7] = {NULL, TSR_ENCODING_Q5_1},
        [8] = {NULL, TSR_ENCODING_Q8_0},
        [9] = {"Q8_1", 0},
        [10] = {NULL, TSR_ENCODING_Q2_K},
        [11] = {NULL, TSR_ENCODING_Q3_K},
        [12] = {NULL, TSR_ENCODING_Q4_K},
        [13] = {NULL, TSR_ENCODING_Q5_K},
        [14] = {NULL, TSR_ENCODING_Q6_K},
        [15] = {"Q8_K", 0},
        [16] = {NULL, TSR_ENCODING_IQ2_XXS},
        [17] = {NULL, TSR_ENCODING_IQ2_XS},
        [18] = {NULL, TSR_ENCODING_IQ3_XXS},
        [19] = {NULL, TSR_ENCODING_IQ1_S},
        [20] = {NULL, TSR_ENCODING_IQ4_NL},
        [21] = {NULL, TSR_ENCODING_IQ3_S},
        [22] = {NULL, TSR_ENCODING_IQ2_S},
        [23] = {NULL, TSR_ENCODING_IQ4_XS},
        [24] = {"I8", 0},
        [25] = {"I16", 0},
        [26] = {"I32", 0},
        [27] = {"I64", 0},
        [28] = {"F64", 0},
        [29] = {NULL, TSR_ENCODING_IQ1_M},
        [30] = {NULL, TSR_ENCODING_BF16},
        [31] = {"Q4_0_4_4", 0},
        [32] = {"Q4_0_4_8", 0},
        [33] = {"Q4_0_8_8", 0},
        [34] = {NULL, TSR_ENCODING_TQ1_0},
        [35] = {NULL, TSR_ENCODING_TQ2_0},
        [36] = {"IQ4_NL_4_4", 0},
        [37] = {"IQ4_NL_4_8", 0},
        [38] = {"IQ4_NL_8_8", 0},
        [39] = {NULL, TSR_ENCODING_MXFP4},
        [40] = {NULL, TSR_ENCODING_NVFP4},
    };
    const bool known = type < sizeof(types) / sizeof(types[0]);

    if (!known || types[type].unsupported != NULL) {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "%s: %s is of type %" PRIu32 " (%s), which cannot be read", c->part->label,
                        c->what, type, known ? types[type].unsupported : "unknown");
    }
    *out = types[type].encoding;
    return TSR_OK;
}

static tsr_status take_shape(cursor *c, tsr_gguf_tensor *out)
{
    uint32_t n_dims;
    int64_t n_elems = 1;

    TSR_TRY(take_u32(c, &n_dims));
    if (n_dims < 1 || n_dims > MAX_DIMS) {
        return tsr_fail(TSR_ERR_FORMAT, "%s: %s has %" PRIu32 " dimensions; 1 to %d are allowed",
                        c->part->label, c->what, n_dims, MAX_DIMS);
    }
    out->n_dims = (int)n_dims;
    for (int d = 0; d < MAX_DIMS; d++) {
        uint64_t dim = 1;

        if (d < out->n_dims) {
            TSR_TRY(take_u64(c, &dim));
        }
        if (dim == 0 || dim > INT64_MAX ||
            __builtin_mul_overflow(n_elems, (int64_t)dim, &n_elems)) {
            return tsr_fail(TSR_ERR_FORMAT,
                            "%s: %s is %" PRIu64
                            " long in dimension %d, which makes no possible number of elements",
                            c->part->label, c->what, dim, d + 1);
        }
        out->shape[d] = (int64_t)dim;
    }
    return TSR_OK;
}

/* One tensor's description. Its `data` comes later, when it is known where the data begin; until
 * then *offset is where from there it lies. */
static tsr_status take_tensor(cursor *c, tsr_gguf_tensor *out, uint64_t *offset)
{
    const tsr_encoding_traits *traits;
    uint32_t type;
    uint64_t n_groups;
    uint64_t n_bytes;

    TSR_TRY(take_name(c, &out->name, "tensor"));
    TSR_TRY(take_shape(c, out));
    TSR_TRY(take_u32(c, &type));
    TSR_TRY(take_u64(c, offset));
    TSR_TRY(encoding_of_type(c, &out->encoding, type));
    traits = tsr_encoding_describe(out->encoding);
    if (out->shape[0] % traits->group_elems != 0) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s: %s has rows of %" PRId64 " elements, which is no whole number of %s "
                        "groups of %d",
                        c->part->label, c->what, out->shape[0], traits->name, traits->group_elems);
    }
    // The product of all dimensions fits, as take_shape saw; so does its quotient.
    n_groups = (uint64_t)(out->shape[0] / traits->group_elems * out->shape[1] * out->shape[2] *
                          out->shape[3]);
    if (__builtin_mul_overflow(n_groups, (uint64_t)traits->group_bytes, &n_bytes)) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s: %s has %" PRIu64 " groups of %d bytes, more than can be",
                        c->part->label, c->what, n_groups, traits->group_bytes);
    }
    out->n_bytes = (size_t)n_bytes;
    return TSR_OK;
}

/* Leaves *out as it is when the file does not say. */
static tsr_status alignment_of(const tsr_gguf_part *part, uint64_t *out)
{
    const tsr_gguf_value *value = tsr_gguf_part_value(part, "general.alignment");
    int64_t alignment = 0;

    if (value == NULL) {
        return TSR_OK;
    }
    // Below 8 the elements themselves would not be aligned.
    if (!tsr_gguf_value_int(value, &alignment) || alignment < 8 || alignment > INT32_MAX ||
        (alignment & (alignment - 1)) != 0) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s: general.alignment must be a whole power of two, 8 or more",
                        part->label);
    }
    *out = (uint64_t)alignment;
    return TSR_OK;
}

/* Turn an offset into an address. */
static tsr_status place_tensor(const tsr_gguf_part *part, tsr_gguf_tensor *tensor,
                               uint64_t data_start, uint64_t offset, uint64_t alignment)
{
    char quoted[QUOTE_BYTES];
    uint64_t start;
    uint64_t end;

    if (offset % alignment == 0 && !__builtin_add_overflow(data_start, offset, &start) &&
        !__builtin_add_overflow(start, tensor->n_bytes, &end) && end <= part->n_bytes) {
        tensor->data = part->bytes + start;
        return TSR_OK;
    }
    tsr_gguf_value_quote(tensor->name, quoted, sizeof(quoted));
    if (offset % alignment != 0) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s: tensor %s lies at offset %" PRIu64
                        ", which is no multiple of the file's alignment of %" PRIu64,
                        part->label, quoted, offset, alignment);
    }
    return tsr_fail(TSR_ERR_FORMAT,
                    "%s is cut short: tensor %s has %zu bytes at offset %" PRIu64
                    " of the data, which begin at byte %" PRIu64 ", but the file has %zu",
                    part->label, quoted, tensor->n_bytes, offset, data_start, part->n_bytes);
}

static int compare_places(const void *a, const void *b)
{
    const uint8_t *first = (*(const tsr_gguf_tensor *const *)a)->data;
    const uint8_t *second = (*(const tsr_gguf_tensor *const *)b)->data;

    return (first > second) - (first < second);
}

static tsr_status check_overlap(const tsr_gguf_part *part)
{
    const tsr_gguf_tensor **sorted = tsr_alloc((size_t)part->n_tensors, sizeof(*sorted));
    tsr_status st = TSR_OK;

    if (sorted == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "%s: no memory to compare %d tensors", part->label,
                        part->n_tensors);
    }
    for (int i = 0; i < part->n_tensors; i++) {
        sorted[i] = &part->tensors[i];
    }
    qsort(sorted, (size_t)part->n_tensors, sizeof(*sorted), compare_places);
    for (int i = 1; i < part->n_tensors && st == TSR_OK; i++) {
        const tsr_gguf_tensor *before = sorted[i - 1];

        if ((const uint8_t *)before->data + before->n_bytes > (const uint8_t *)sorted[i]->data) {
            char first[QUOTE_BYTES];
            char second[QUOTE_BYTES];

            tsr_gguf_value_quote(before->name, first, sizeof(first));
            tsr_gguf_value_quote(sorted[i]->name, second, sizeof(second));
            st = tsr_fail(TSR_ERR_FORMAT, "%s: tensors %s and %s overlap", part->label, first,
                          second);
        }
    }
    tsr_free(sorted);
    return st;
}

/* Reads the descriptions twice: data begin where the last one ends, and only then is it known
 * whether the first one's bytes lie within the file. */
static tsr_status read_tensors(tsr_gguf_part *part, cursor *c, int n_tensors)
{
    const cursor first = *c;
    uint64_t alignment = DEFAULT_ALIGNMENT;
    uint64_t offset;
    uint64_t data_start;

    TSR_TRY(alignment_of(part, &alignment));
    for (int i = 0; i < n_tensors; i++) {
        void *table = part->tensors;

        TSR_TRY(grow(c, &table, i, sizeof(*part->tensors)));
        part->tensors = table;
        part->tensors[i] = (tsr_gguf_tensor){0};
        part->n_tensors = i + 1;
        (void)snprintf(c->what, sizeof(c->what), "tensor %d of %d", i + 1, n_tensors);
        TSR_TRY(take_tensor(c, &part->tensors[i], &offset));
    }
    data_start = (c->at + alignment - 1) / alignment * alignment;
    *c = first;
    for (int i = 0; i < n_tensors; i++) {
        TSR_TRY(take_tensor(c, &part->tensors[i], &offset));
        TSR_TRY(place_tensor(part, &part->tensors[i], data_start, offset, alignment));
    }
    return check_overlap(part);
}

/* ---- the whole ---------------------------------------------------------------------------------
 */

static tsr_status check_magic(const tsr_gguf_part *part)
{
    static const char magic[4] = {'G', 'G', 'U', 'F'};
    char shown[3 * sizeof(magic) + 1] = "";

    if (part->n_bytes == 0) {
        return tsr_fail(TSR_ERR_FORMAT, "%s is empty", part->label);
    }
    if (part->n_bytes >= sizeof(magic) && memcmp(part->bytes, magic, sizeof(magic)) == 0) {
        return TSR_OK;
    }
    for (size_t i = 0; i < sizeof(magic) && i < part->n_bytes; i++) {
        (void)snprintf(shown + 3 * i, 4, " %02x", part->bytes[i]);
    }
    return tsr_fail(TSR_ERR_FORMAT,
                    "%s is not a GGUF file: it begins with%s, not with 47 47 55 46 (\"GGUF\")",
                    part->label, shown);
}

static tsr_status check_version(const tsr_gguf_part *part, uint32_t version)
{
    if (version == 2 || version == 3) {
        return TSR_OK;
    }
    if (version == UINT32_C(2) << 24 || version == UINT32_C(3) << 24) {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "%s is a big-endian GGUF file; only little-endian ones can be read",
                        part->label);
    }
    return tsr_fail(TSR_ERR_UNSUPPORTED,
                    "%s is a GGUF file of version %" PRIu32 "; versions 2 and 3 can be read",
                    part->label, version);
}

tsr_status tsr_gguf_part_parse(tsr_gguf_part *part)
{
    cursor c = {.part = part, .what = "the header"};
    uint32_t version;
    uint64_t n_tensors;
    uint64_t n_keys;

    TSR_TRY(check_magic(part));
    TSR_TRY(take(&c, 4));
    TSR_TRY(take_u32(&c, &version));
    TSR_TRY(check_version(part, version));
    TSR_TRY(take_count(&c, &n_tensors, MIN_TENSOR_BYTES, "tensors"));
    TSR_TRY(take_count(&c, &n_keys, MIN_KEY_BYTES, "keys"));
    if (n_tensors > INT32_MAX / 4 || n_keys > INT32_MAX / 4) {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "%s has %" PRIu64 " tensors and %" PRIu64 " keys; at most %d can be read",
                        part->label, n_tensors, n_keys, INT32_MAX / 4);
    }
    TSR_TRY(read_keys(part, &c, (int)n_keys));
    return read_tensors(part, &c, (int)n_tensors);
}

void tsr_gguf_part_clear(tsr_gguf_part *part)
{
    for (int i = 0; i < part->n_keys; i++) {
        tsr_free(part->keys[i].value.string_at);
    }
    tsr_free(part->keys);
    tsr_free(part->tensors);
    tsr_gguf_names_clear(&part->names);
    part->keys = NULL;
    part->n_keys = 0;
    part->tensors = NULL;
    part->n_tensors = 0;
}

const tsr_gguf_value *tsr_gguf_part_value(const tsr_gguf_part *part, const char *key)
{
    const int i = tsr_gguf_names_find(&part->names, key);

    return i >= 0 ? &part->keys[i].value : NULL;
}

int64_t tsr_gguf_part_int(const tsr_gguf_part *part, const char *key, int64_t fallback)
{
    const tsr_gguf_value *value = tsr_gguf_part_value(part, key);
    int64_t number;

    return value != NULL && tsr_gguf_value_int(value, &number) ? number : fallback;
}
