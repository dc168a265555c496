#include "engine/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/file_map.h"
#include "engine/gguf_names.h"
#include "engine/json_file.h"

enum {
    LENGTH_BYTES = 8,
    MOST_HEADER_BYTES = 100000000, // the format's own limit
    MOST_DIMS = 4,
    MOST_FILES = 4096,
    PATH_BYTES = 4096,
    NAME_BYTES = 256
};

static const char INDEX[] = "model.safetensors.index.json";

typedef struct part {
    char name[NAME_BYTES]; /* in its folder; what messages call it */
    tsr_file_map map;
    const uint8_t *bytes;
    size_t n_bytes;
    json_t *header; /* owned; the tensors' names live in it */
} part;

struct tsr_safetensors {
    part *parts; /* [n_parts], owned */
    int n_parts;
    tsr_stored_tensor *tensors; /* [n_tensors], owned */
    int n_tensors;
    tsr_gguf_names names;
    uint64_t header_bytes;
};

/* ---- one file ------------------------------------------------------------------------------ */

typedef struct stored_type {
    const char *name;
    tsr_encoding encoding;
    int bytes;
} stored_type;

/* Types that no weight of ours has are known by size: an unused tensor may have them. */
static const stored_type types[] = {
    {"F32", TSR_ENCODING_F32, 4},       {"F16", TSR_ENCODING_F16, 2},
    {"BF16", TSR_ENCODING_BF16, 2},     {"F64", TSR_ENCODING_COUNT, 8},
    {"I64", TSR_ENCODING_COUNT, 8},     {"U64", TSR_ENCODING_COUNT, 8},
    {"I32", TSR_ENCODING_COUNT, 4},     {"U32", TSR_ENCODING_COUNT, 4},
    {"I16", TSR_ENCODING_COUNT, 2},     {"U16", TSR_ENCODING_COUNT, 2},
    {"I8", TSR_ENCODING_COUNT, 1},      {"U8", TSR_ENCODING_COUNT, 1},
    {"BOOL", TSR_ENCODING_COUNT, 1},    {"F8_E4M3", TSR_ENCODING_COUNT, 1},
    {"F8_E5M2", TSR_ENCODING_COUNT, 1},
};

static const stored_type *find_type(const char *name)
{
    for (size_t i = 0; name != NULL && i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(types[i].name, name) == 0) {
            return &types[i];
        }
    }
    return NULL;
}

/* The list [a, b, ...] of whole numbers that are not negative; how many, or -1. */
static int read_numbers(const json_t *list, int64_t *numbers, int most)
{
    const size_t n = json_array_size(list);

    if (!json_is_array(list) || n > (size_t)most) {
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_array_get(list, i);

        if (!json_is_integer(one) || json_integer_value(one) < 0) {
            return -1;
        }
        numbers[i] = (int64_t)json_integer_value(one);
    }
    return (int)n;
}

static tsr_status read_shape(tsr_stored_tensor *t, const part *p, const char *name,
                             const json_t *list, const stored_type *type, uint64_t *n_bytes)
{
    int64_t shape[MOST_DIMS];

    t->n_dims = read_numbers(list, shape, MOST_DIMS);
    if (t->n_dims < 0) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s: the shape of %s is no list of up to %d sizes that are not negative",
                        p->name, name, MOST_DIMS);
    }
    *n_bytes = (uint64_t)type->bytes;
    for (int d = 0; d < MOST_DIMS; d++) {
        t->shape[d] = d < t->n_dims ? shape[t->n_dims - 1 - d] : 1;
        if (__builtin_mul_overflow(*n_bytes, (uint64_t)t->shape[d], n_bytes)) {
            return tsr_fail(TSR_ERR_FORMAT, "%s: the shape of %s is more than can be counted",
                            p->name, name);
        }
    }
    return TSR_OK;
}

static tsr_status read_tensor(tsr_stored_tensor *t, const part *p, const char *name,
                              const json_t *entry, const uint8_t *tensors, size_t room)
{
    const stored_type *type = find_type(json_string_value(json_object_get(entry, "dtype")));
    const char *said = json_string_value(json_object_get(entry, "dtype"));
    int64_t offsets[2];
    uint64_t n_bytes = 0;

    if (!json_is_object(entry) || type == NULL) {
        return tsr_fail(TSR_ERR_FORMAT, "%s: %.100s is of the type %.40s, which is not known",
                        p->name, name, said == NULL ? "(none)" : said);
    }
    TSR_TRY(read_shape(t, p, name, json_object_get(entry, "shape"), type, &n_bytes));
    if (read_numbers(json_object_get(entry, "data_offsets"), offsets, 2) != 2 ||
        offsets[0] > offsets[1] || (uint64_t)offsets[1] > room) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s: %.100s does not lie within the file's %zu bytes of tensors", p->name,
                        name, room);
    }
    if ((uint64_t)(offsets[1] - offsets[0]) != n_bytes) {
        return tsr_fail(TSR_ERR_FORMAT, "%s: %.100s has %lld bytes; its shape and type need %llu",
                        p->name, name, (long long)(offsets[1] - offsets[0]),
                        (unsigned long long)n_bytes);
    }
    t->name = (tsr_stored_text){name, strlen(name)};
    t->encoding = type->encoding;
    t->type = type->name;
    t->data = tensors + offsets[0];
    t->n_bytes = (size_t)n_bytes;
    return TSR_OK;
}

static int by_place(const void *a, const void *b)
{
    const tsr_stored_tensor *x = a;
    const tsr_stored_tensor *y = b;

    if (x->data != y->data) {
        return (uintptr_t)x->data < (uintptr_t)y->data ? -1 : 1;
    }
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes); // empty ones first
}

/* Each tensor begins where the one before ended, the first at the start and the last ends at the
 * end. Sorts them. */
static tsr_status check_tiling(const part *p, tsr_stored_tensor *t, int n, const uint8_t *at)
{
    qsort(t, (size_t)n, sizeof(*t), by_place);
    for (int i = 0; i < n; i++) {
        if ((const uint8_t *)t[i].data != at) {
            return tsr_fail(TSR_ERR_FORMAT, "%s: %.100s %s", p->name, t[i].name.bytes,
                            (const uint8_t *)t[i].data < at ? "overlaps the tensor before it"
                                                            : "does not follow the one before it");
        }
        at += t[i].n_bytes;
    }
    if (at != p->bytes + p->n_bytes) {
        return tsr_fail(TSR_ERR_FORMAT, "%s has %zu bytes behind its last tensor", p->name,
                        (size_t)(p->bytes + p->n_bytes - at));
    }
    return TSR_OK;
}

/* Reads a file's header and appends its tensors. */
static tsr_status parse_part(tsr_safetensors *files, int number)
{
    part *p = &files->parts[number];
    tsr_stored_tensor *grown;
    uint64_t length = 0;
    const char *name;
    json_t *entry;
    int first = files->n_tensors;

    if (p->n_bytes < LENGTH_BYTES) {
        return tsr_fail(TSR_ERR_FORMAT, "%s has %zu bytes: no safetensors file is so short",
                        p->name, p->n_bytes);
    }
    memcpy(&length, p->bytes, sizeof(length));
    if (length > MOST_HEADER_BYTES || length > p->n_bytes - LENGTH_BYTES) {
        return tsr_fail(TSR_ERR_FORMAT, "%s is cut short: its header has %llu bytes, the file %zu",
                        p->name, (unsigned long long)length, p->n_bytes);
    }
    TSR_TRY(tsr_json_file_parse(&p->header, p->bytes + LENGTH_BYTES, (size_t)length, p->name));
    files->header_bytes += LENGTH_BYTES + length;
    grown = tsr_alloc_resize(files->tensors, (size_t)first + json_object_size(p->header),
                             sizeof(*grown));
    if (grown == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for the tensors of %s", p->name);
    }
    files->tensors = grown;
    json_object_foreach(p->header, name, entry)
    {
        if (strcmp(name, "__metadata__") != 0) {
            tsr_stored_tensor *t = &grown[files->n_tensors];

            *t = (tsr_stored_tensor){.part = number};
            TSR_TRY(read_tensor(t, p, name, entry, p->bytes + LENGTH_BYTES + length,
                                p->n_bytes - LENGTH_BYTES - (size_t)length));
            files->n_tensors++;
        }
    }
    return check_tiling(p, grown + first, files->n_tensors - first,
                        p->bytes + LENGTH_BYTES + length);
}

/* ---- which files --------------------------------------------------------------------------- */

static tsr_status add_file(tsr_safetensors *files, const char *name)
{
    part *grown;

    if (files->n_parts == MOST_FILES) {
        return tsr_fail(TSR_ERR_FORMAT, "a model of more than %d files", MOST_FILES);
    }
    if (strlen(name) >= NAME_BYTES || strchr(name, '/') != NULL || name[0] == '.') {
        return tsr_fail(TSR_ERR_FORMAT, "%s names \"%.60s\", which is no name of a file beside it",
                        INDEX, name);
    }
    grown = tsr_alloc_resize(files->parts, (size_t)files->n_parts + 1, sizeof(*grown));
    if (grown == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for the files of a model");
    }
    files->parts = grown;
    grown[files->n_parts] = (part){0};
    (void)snprintf(grown[files->n_parts].name, NAME_BYTES, "%s", name);
    files->n_parts++;
    return TSR_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const part *)a)->name, ((const part *)b)->name);
}

static bool is_there(const tsr_safetensors *files, const char *name)
{
    for (int i = 0; i < files->n_parts; i++) {
        if (strcmp(files->parts[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* Without an index: names of the form model-00001-of-00003.safetensors must all be there. */
static tsr_status check_numbering(const tsr_safetensors *files)
{
    for (int i = 0; i < files->n_parts; i++) {
        int number;
        int n_files;

        if (sscanf(files->parts[i].name, "model-%5d-of-%5d.safetensors", &number, &n_files) == 2) {
            for (int k = 1; k <= n_files && k <= MOST_FILES; k++) {
                char name[NAME_BYTES];

                (void)snprintf(name, sizeof(name), "model-%05d-of-%05d.safetensors", k, n_files);
                if (!is_there(files, name)) {
                    return tsr_fail(TSR_ERR_IO, "file %d of %d of the model is missing: %s", k,
                                    n_files, name);
                }
            }
        }
    }
    return TSR_OK;
}

static tsr_status list_folder(tsr_safetensors *files, const char *folder)
{
    static const char ending[] = ".safetensors";
    DIR *dir = opendir(folder);
    const struct dirent *entry;
    tsr_status st = TSR_OK;

    if (dir == NULL) {
        return tsr_fail(TSR_ERR_IO, "%.200s cannot be opened: %s", folder, strerror(errno));
    }
    // The listing belongs to this thread and is read by nobody else.
    while (st == TSR_OK && (entry = readdir(dir)) != NULL) { // NOLINT(concurrency-mt-unsafe)
        const size_t n = strlen(entry->d_name);

        if (strncmp(entry->d_name, "model", 5) == 0 && n > sizeof(ending) &&
            strcmp(entry->d_name + n - (sizeof(ending) - 1), ending) == 0) {
            st = add_file(files, entry->d_name);
        }
    }
    (void)closedir(dir);
    TSR_TRY(st);
    if (files->n_parts == 0) {
        return tsr_fail(TSR_ERR_IO, "%.200s has no model*.safetensors", folder);
    }
    qsort(files->parts, (size_t)files->n_parts, sizeof(*files->parts), by_name);
    return check_numbering(files);
}

static tsr_status list_index(tsr_safetensors *files, const json_t *index)
{
    const json_t *map = json_object_get(index, "weight_map");
    const char *name;
    const json_t *file;

    if (!json_is_object(map) || json_object_size(map) == 0) {
        return tsr_fail(TSR_ERR_FORMAT, "%s has no weight_map", INDEX);
    }
    json_object_foreach((json_t *)(uintptr_t)map, name, file)
    {
        if (!json_is_string(file)) {
            return tsr_fail(TSR_ERR_FORMAT, "%s does not say the file of %.100s", INDEX, name);
        }
        if (!is_there(files, json_string_value(file))) {
            TSR_TRY(add_file(files, json_string_value(file)));
        }
    }
    qsort(files->parts, (size_t)files->n_parts, sizeof(*files->parts), by_name);
    return TSR_OK;
}

/* Index and files tell the same. */
static tsr_status check_index(const tsr_safetensors *files, const json_t *index)
{
    const json_t *map = json_object_get(index, "weight_map");
    const char *name;
    const json_t *file;

    json_object_foreach((json_t *)(uintptr_t)map, name, file)
    {
        const tsr_stored_tensor *t = tsr_safetensors_find(files, name);

        if (t == NULL || strcmp(files->parts[t->part].name, json_string_value(file)) != 0) {
            return tsr_fail(TSR_ERR_FORMAT, "%s says that %.100s is in %s, where it is not", INDEX,
                            name, json_string_value(file));
        }
    }
    for (int i = 0; i < files->n_tensors; i++) {
        if (json_object_get(map, files->tensors[i].name.bytes) == NULL) {
            return tsr_fail(TSR_ERR_FORMAT, "%s has the tensor %.100s, which %s does not know",
                            files->parts[files->tensors[i].part].name, files->tensors[i].name.bytes,
                            INDEX);
        }
    }
    return TSR_OK;
}

/* ---- all of them --------------------------------------------------------------------------- */

static tsr_status sort_names(tsr_safetensors *files)
{
    const tsr_gguf_name *twin;

    TSR_TRY(tsr_gguf_names_init(&files->names, files->n_tensors));
    for (int i = 0; i < files->n_tensors; i++) {
        files->names.sorted[i] = (tsr_gguf_name){files->tensors[i].name, i};
    }
    twin = tsr_gguf_names_sort(&files->names);
    if (twin != NULL) {
        return tsr_fail(TSR_ERR_FORMAT, "the tensor %.100s is there twice: in %s and in %s",
                        twin->text.bytes, files->parts[files->tensors[twin[0].i].part].name,
                        files->parts[files->tensors[twin[1].i].part].name);
    }
    return TSR_OK;
}

static tsr_status open_parts(tsr_safetensors *files, const char *folder)
{
    char path[PATH_BYTES];

    for (int i = 0; i < files->n_parts; i++) {
        part *p = &files->parts[i];

        if (snprintf(path, sizeof(path), "%s/%s", folder, p->name) >= (int)sizeof(path)) {
            return tsr_fail(TSR_ERR_IO, "the path of %s is too long", p->name);
        }
        TSR_TRY(tsr_file_map_open(&p->map, path, p->name));
        p->bytes = p->map.mapping;
        p->n_bytes = p->map.n_bytes;
        TSR_TRY(parse_part(files, i));
    }
    return sort_names(files);
}

static tsr_status open_folder(tsr_safetensors *files, const char *folder, json_t **index)
{
    char path[PATH_BYTES];

    if (snprintf(path, sizeof(path), "%s/%s", folder, INDEX) >= (int)sizeof(path)) {
        return tsr_fail(TSR_ERR_IO, "the path of a model's folder is too long");
    }
    TSR_TRY(tsr_json_file_read(index, path, INDEX));
    TSR_TRY(*index != NULL ? list_index(files, *index) : list_folder(files, folder));
    TSR_TRY(open_parts(files, folder));
    return *index != NULL ? check_index(files, *index) : TSR_OK;
}

tsr_status tsr_safetensors_open(tsr_safetensors **out, const char *folder)
{
    tsr_safetensors *files = tsr_alloc(1, sizeof(*files));
    json_t *index = NULL;
    tsr_status st;

    if (files == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to open a model's folder");
    }
    st = open_folder(files, folder, &index);
    json_decref(index);
    if (st != TSR_OK) {
        tsr_safetensors_close(files);
        return st;
    }
    *out = files;
    return TSR_OK;
}

tsr_status tsr_safetensors_open_bytes(tsr_safetensors **out, const void *bytes, size_t n_bytes)
{
    tsr_safetensors *files = tsr_alloc(1, sizeof(*files));
    tsr_status st;

    if (files == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to open a safetensors file");
    }
    TSR_TRY_GOTO(st, fail, add_file(files, "(in memory)"));
    files->parts[0].bytes = bytes;
    files->parts[0].n_bytes = n_bytes;
    TSR_TRY_GOTO(st, fail, parse_part(files, 0));
    TSR_TRY_GOTO(st, fail, sort_names(files));
    *out = files;
    return TSR_OK;

fail:
    tsr_safetensors_close(files);
    return st;
}

void tsr_safetensors_close(tsr_safetensors *files)
{
    if (files == NULL) {
        return;
    }
    tsr_gguf_names_clear(&files->names);
    tsr_free(files->tensors);
    for (int i = files->n_parts - 1; i >= 0; i--) {
        json_decref(files->parts[i].header);
        tsr_file_map_close(&files->parts[i].map);
    }
    tsr_free(files->parts);
    tsr_free(files);
}

int tsr_safetensors_count(const tsr_safetensors *files)
{
    return files->n_tensors;
}

const tsr_stored_tensor *tsr_safetensors_at(const tsr_safetensors *files, int i)
{
    return &files->tensors[i];
}

const tsr_stored_tensor *tsr_safetensors_find(const tsr_safetensors *files, const char *name)
{
    const int i = tsr_gguf_names_find(&files->names, name);

    return i >= 0 ? &files->tensors[i] : NULL;
}

uint64_t tsr_safetensors_file_bytes(const tsr_safetensors *files)
{
    uint64_t n_bytes = 0;

    for (int i = 0; i < files->n_parts; i++) {
        n_bytes += files->parts[i].n_bytes;
    }
    return n_bytes;
}

uint64_t tsr_safetensors_header_bytes(const tsr_safetensors *files)
{
    return files->header_bytes;
}

void tsr_safetensors_release_pages(const tsr_safetensors *files)
{
    for (int i = 0; i < files->n_parts; i++) {
        tsr_file_map_release(&files->parts[i].map);
    }
}
