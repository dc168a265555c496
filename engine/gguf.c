#include "engine/gguf.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "engine/gguf_part.h"

enum {
    SUFFIX_BYTES = 20, // of "-00001-of-00003.gguf"
    MAX_PARTS = 99999  // five digits
};

struct tsr_gguf {
    tsr_gguf_part *parts; /* [n_parts], owned; the first has the metadata */
    int n_parts;
    tsr_gguf_tensor *tensors; /* [n_tensors], owned: those of all parts, in order */
    int n_tensors;
    tsr_gguf_names names; /* of the tensors */
};

/* ---- files -------------------------------------------------------------------------------------
 */

/* A long path is cut at its front: the end tells more. */
static void set_label(tsr_gguf_part *part, const char *path)
{
    const size_t n_bytes = strlen(path);
    const size_t most = sizeof(part->label) - 4;

    (void)snprintf(part->label, sizeof(part->label), "%s%s", n_bytes > most ? "..." : "",
                   n_bytes > most ? path + n_bytes - most : path);
}

static tsr_status open_part(tsr_gguf_part *part, const char *path)
{
    set_label(part, path);
    TSR_TRY(tsr_file_map_open(&part->map, path, part->label));
    part->bytes = part->map.mapping;
    part->n_bytes = part->map.n_bytes;
    return tsr_gguf_part_parse(part);
}

/* ---- split models ------------------------------------------------------------------------------
 */

/* How many parts the model has, as its first part says. */
static tsr_status count_parts(const tsr_gguf_part *first, int *out)
{
    const int64_t count = tsr_gguf_part_int(first, "split.count", 1);
    const int64_t no = tsr_gguf_part_int(first, "split.no", 0);

    if (count < 0 || count > MAX_PARTS) {
        return tsr_fail(TSR_ERR_FORMAT, "%s says that its model has %" PRId64 " parts",
                        first->label, count);
    }
    if (count > 1 && no != 0) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s is part %" PRId64 " of a model of %" PRId64 "; open its first part",
                        first->label, no < INT64_MAX ? no + 1 : no, count);
    }
    *out = count > 1 ? (int)count : 1;
    return TSR_OK;
}

static tsr_status open_other_part(tsr_gguf_part *part, const char *path, int i, int n_parts)
{
    tsr_status st;
    int64_t no;
    int64_t count;

    if (access(path, F_OK) != 0) {
        set_label(part, path);
        return tsr_fail(TSR_ERR_IO, "part %d of %d is missing: %s: %s", i + 1, n_parts, part->label,
                        strerror(errno));
    }
    st = open_part(part, path);
    TSR_TRY(st);
    no = tsr_gguf_part_int(part, "split.no", -1);
    count = tsr_gguf_part_int(part, "split.count", -1);
    if (no != i || count != n_parts) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s should be part %d of %d, but its split.no is %" PRId64
                        " and its split.count %" PRId64,
                        part->label, i + 1, n_parts, no, count);
    }
    return TSR_OK;
}

static tsr_status open_other_parts(tsr_gguf *gguf, const char *path, int n_parts)
{
    const size_t path_bytes = strlen(path);
    char suffix[2 * SUFFIX_BYTES];
    tsr_status st = TSR_OK;
    tsr_gguf_part *parts;
    char *other;

    (void)snprintf(suffix, sizeof(suffix), "-00001-of-%05d.gguf", n_parts);
    if (path_bytes < SUFFIX_BYTES || strcmp(path + path_bytes - SUFFIX_BYTES, suffix) != 0) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s is the first of %d parts, but its name does not end in %s, so that the "
                        "others cannot be found",
                        gguf->parts[0].label, n_parts, suffix);
    }
    parts = tsr_alloc_resize(gguf->parts, (size_t)n_parts, sizeof(*parts));
    if (parts == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "%s: no memory for %d parts", gguf->parts[0].label, n_parts);
    }
    gguf->parts = parts;
    memset(&parts[1], 0, (size_t)(n_parts - 1) * sizeof(*parts));
    gguf->n_parts = n_parts;

    other = tsr_alloc_text(path, path_bytes);
    if (other == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "%s: no memory for its other parts' names", parts[0].label);
    }
    for (int i = 1; i < n_parts && st == TSR_OK; i++) {
        (void)snprintf(suffix, sizeof(suffix), "-%05d-of-%05d.gguf", i + 1, n_parts);
        memcpy(other + path_bytes - SUFFIX_BYTES, suffix, SUFFIX_BYTES);
        st = open_other_part(&parts[i], other, i, n_parts);
    }
    tsr_free(other);
    return st;
}

/* ---- open and close ----------------------------------------------------------------------------
 */

static tsr_status join_tensors(tsr_gguf *gguf)
{
    const char *label = gguf->parts[0].label;
    const tsr_gguf_name *twin;
    int64_t n_tensors = 0;
    int64_t expected;

    for (int p = 0; p < gguf->n_parts; p++) {
        n_tensors += gguf->parts[p].n_tensors;
    }
    expected = tsr_gguf_part_int(&gguf->parts[0], "split.tensors.count", n_tensors);
    if (gguf->n_parts > 1 && expected != n_tensors) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s says that its %d parts have %" PRId64
                        " tensors, but they have %" PRId64,
                        label, gguf->n_parts, expected, n_tensors);
    }
    if (n_tensors > INT32_MAX / 4) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "%s: its parts have %" PRId64 " tensors in all", label,
                        n_tensors);
    }
    gguf->tensors = tsr_alloc((size_t)n_tensors, sizeof(*gguf->tensors));
    if (gguf->tensors == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "%s: no memory for a table of %" PRId64 " tensors", label,
                        n_tensors);
    }
    TSR_TRY(tsr_gguf_names_init(&gguf->names, (int)n_tensors));
    for (int p = 0; p < gguf->n_parts; p++) {
        for (int i = 0; i < gguf->parts[p].n_tensors; i++) {
            const int at = gguf->n_tensors++;

            gguf->tensors[at] = gguf->parts[p].tensors[i];
            gguf->tensors[at].part = p;
            gguf->names.sorted[at] = (tsr_gguf_name){gguf->tensors[at].name, at};
        }
    }
    twin = tsr_gguf_names_sort(&gguf->names);
    if (twin != NULL) {
        char quoted[96];

        tsr_gguf_value_quote(twin->text, quoted, sizeof(quoted));
        return tsr_fail(TSR_ERR_FORMAT, "%s has the tensor %s twice", label, quoted);
    }
    return TSR_OK;
}

static tsr_gguf *new_gguf(void)
{
    tsr_gguf *gguf = tsr_alloc(1, sizeof(*gguf));

    if (gguf == NULL) {
        return NULL;
    }
    gguf->parts = tsr_alloc(1, sizeof(*gguf->parts));
    if (gguf->parts == NULL) {
        tsr_free(gguf);
        return NULL;
    }
    gguf->n_parts = 1;
    return gguf;
}

tsr_status tsr_gguf_open(tsr_gguf **out, const char *path)
{
    tsr_gguf *gguf = new_gguf();
    tsr_status st;
    int n_parts;

    if (gguf == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to open a GGUF file");
    }
    TSR_TRY_GOTO(st, fail, open_part(&gguf->parts[0], path));
    TSR_TRY_GOTO(st, fail, count_parts(&gguf->parts[0], &n_parts));
    if (n_parts > 1) {
        TSR_TRY_GOTO(st, fail, open_other_parts(gguf, path, n_parts));
    }
    TSR_TRY_GOTO(st, fail, join_tensors(gguf));
    *out = gguf;
    return TSR_OK;

fail:
    tsr_gguf_close(gguf);
    return st;
}

tsr_status tsr_gguf_open_bytes(tsr_gguf **out, const void *bytes, size_t n_bytes)
{
    tsr_gguf *gguf = new_gguf();
    tsr_status st;
    int n_parts;

    if (gguf == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to open a GGUF file");
    }
    set_label(&gguf->parts[0], "(in memory)");
    gguf->parts[0].bytes = bytes;
    gguf->parts[0].n_bytes = n_bytes;
    TSR_TRY_GOTO(st, fail, tsr_gguf_part_parse(&gguf->parts[0]));
    TSR_TRY_GOTO(st, fail, count_parts(&gguf->parts[0], &n_parts));
    if (n_parts > 1) {
        st = tsr_fail(TSR_ERR_UNSUPPORTED, "%s is one of %d parts; open the model by its path",
                      gguf->parts[0].label, n_parts);
        goto fail;
    }
    TSR_TRY_GOTO(st, fail, join_tensors(gguf));
    *out = gguf;
    return TSR_OK;

fail:
    tsr_gguf_close(gguf);
    return st;
}

void tsr_gguf_close(tsr_gguf *gguf)
{
    if (gguf == NULL) {
        return;
    }
    tsr_gguf_names_clear(&gguf->names);
    tsr_free(gguf->tensors);
    for (int p = gguf->n_parts - 1; p >= 0; p--) {
        tsr_gguf_part *part = &gguf->parts[p];

        tsr_gguf_part_clear(part);
        tsr_file_map_close(&part->map);
    }
    tsr_free(gguf->parts);
    tsr_free(gguf);
}

/* ---- metadata ----------------------------------------------------------------------------------
 */

static const tsr_gguf_value *find_value(const tsr_gguf *gguf, const char *key)
{
    return tsr_gguf_part_value(&gguf->parts[0], key);
}

/* The answer for a key of another kind than was asked for. */
static bool mismatch(const tsr_gguf *gguf, const char *key, const char *wanted)
{
    char text[80];

    tsr_gguf_value_describe(find_value(gguf, key), text, sizeof(text));
    tsr_log_warn("%s: key %s should be %s and is not used: it is %s", gguf->parts[0].label, key,
                 wanted, text);
    return false;
}

bool tsr_gguf_int(const tsr_gguf *gguf, const char *key, int64_t *out)
{
    const tsr_gguf_value *value = find_value(gguf, key);

    return value != NULL &&
           (tsr_gguf_value_int(value, out) || mismatch(gguf, key, "a whole number"));
}

bool tsr_gguf_float(const tsr_gguf *gguf, const char *key, double *out)
{
    const tsr_gguf_value *value = find_value(gguf, key);

    return value != NULL && (tsr_gguf_value_float(value, out) || mismatch(gguf, key, "a number"));
}

bool tsr_gguf_bool(const tsr_gguf *gguf, const char *key, bool *out)
{
    const tsr_gguf_value *value = find_value(gguf, key);

    return value != NULL && (tsr_gguf_value_bool(value, out) || mismatch(gguf, key, "a bool"));
}

bool tsr_gguf_string(const tsr_gguf *gguf, const char *key, tsr_gguf_text *out)
{
    const tsr_gguf_value *value = find_value(gguf, key);

    return value != NULL && (tsr_gguf_value_string(value, out) || mismatch(gguf, key, "a string"));
}

int64_t tsr_gguf_array_count(const tsr_gguf *gguf, const char *key)
{
    const tsr_gguf_value *value = find_value(gguf, key);

    if (value != NULL && value->kind == TSR_GGUF_KIND_ARRAY) {
        return (int64_t)value->n_elems;
    }
    if (value != NULL) {
        (void)mismatch(gguf, key, "an array");
    }
    return -1;
}

bool tsr_gguf_array_string(const tsr_gguf *gguf, const char *key, int64_t i, tsr_gguf_text *out)
{
    const tsr_gguf_value *value = find_value(gguf, key);
    tsr_gguf_value elem;

    return value != NULL && tsr_gguf_value_elem(value, i, &elem) &&
           tsr_gguf_value_string(&elem, out);
}

bool tsr_gguf_array_int(const tsr_gguf *gguf, const char *key, int64_t i, int64_t *out)
{
    const tsr_gguf_value *value = find_value(gguf, key);
    tsr_gguf_value elem;
    bool truth;

    if (value == NULL || !tsr_gguf_value_elem(value, i, &elem)) {
        return false;
    }
    if (tsr_gguf_value_bool(&elem, &truth)) {
        *out = truth ? 1 : 0;
        return true;
    }
    return tsr_gguf_value_int(&elem, out);
}

bool tsr_gguf_array_float(const tsr_gguf *gguf, const char *key, int64_t i, double *out)
{
    const tsr_gguf_value *value = find_value(gguf, key);
    tsr_gguf_value elem;

    return value != NULL && tsr_gguf_value_elem(value, i, &elem) &&
           tsr_gguf_value_float(&elem, out);
}

int tsr_gguf_key_count(const tsr_gguf *gguf)
{
    return gguf->parts[0].n_keys;
}

tsr_gguf_text tsr_gguf_key_name(const tsr_gguf *gguf, int i)
{
    return gguf->parts[0].keys[i].name;
}

void tsr_gguf_key_value(const tsr_gguf *gguf, int i, char *text, size_t text_bytes)
{
    tsr_gguf_value_describe(&gguf->parts[0].keys[i].value, text, text_bytes);
}

/* ---- tensors -----------------------------------------------------------------------------------
 */

int tsr_gguf_tensor_count(const tsr_gguf *gguf)
{
    return gguf->n_tensors;
}

const tsr_gguf_tensor *tsr_gguf_tensor_at(const tsr_gguf *gguf, int i)
{
    return &gguf->tensors[i];
}

const tsr_gguf_tensor *tsr_gguf_find(const tsr_gguf *gguf, const char *name)
{
    const int i = tsr_gguf_names_find(&gguf->names, name);

    return i >= 0 ? &gguf->tensors[i] : NULL;
}

uint64_t tsr_gguf_file_bytes(const tsr_gguf *gguf)
{
    uint64_t n_bytes = 0;

    for (int p = 0; p < gguf->n_parts; p++) {
        n_bytes += gguf->parts[p].n_bytes;
    }
    return n_bytes;
}

void tsr_gguf_release_pages(const tsr_gguf *gguf)
{
    for (int p = 0; p < gguf->n_parts; p++) {
        tsr_file_map_release(&gguf->parts[p].map);
    }
}
