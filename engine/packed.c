#include "engine/packed.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/dtype.h"

enum {
    WORD_BITS = 32,
    NAME_BYTES = 256,
    MOST_GROUPS = 65536,
    FP8_NAN = 0x7F,
    E8M0_NAN = 0xFF,
    BLOCK_BYTES = 16 // of MXFP4: 32 codes
};

/* ---- finding --------------------------------------------------------------------------------- */

/* What is called name + suffix; it is then one of the weight's tensors. */
static const tsr_stored_tensor *find(tsr_packed *p, const tsr_checkpoint *checkpoint,
                                     const char *name, const char *suffix)
{
    char whole[NAME_BYTES];
    const tsr_stored_tensor *tensor = NULL;

    if (snprintf(whole, sizeof(whole), "%s%s", name, suffix) < (int)sizeof(whole)) {
        tensor = tsr_checkpoint_find(checkpoint, whole);
    }
    if (tensor != NULL) {
        p->tensors[p->n_tensors++] = tensor;
    }
    return tensor;
}

/* [outer, inner] of a type; not empty. */
static tsr_status check_shape(const char *name, const char *suffix, const tsr_stored_tensor *tensor,
                              int64_t outer, int64_t inner, const char *type)
{
    if (tensor == NULL) {
        return tsr_fail(TSR_ERR_FORMAT, "%s%s is missing", name, suffix);
    }
    if (tensor->shape[0] != inner || tensor->shape[1] != outer || tensor->n_dims > 2 ||
        tensor->n_bytes == 0 || tensor->type == NULL || strcmp(tensor->type, type) != 0) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s%s is [%lld, %lld] of %s where [%lld, %lld] of %s belongs", name, suffix,
                        (long long)tensor->shape[1], (long long)tensor->shape[0],
                        tensor->type == NULL ? "another type" : tensor->type, (long long)outer,
                        (long long)inner, type);
    }
    return TSR_OK;
}

/* Its own shape, whatever it is, as a matrix of a type. */
static tsr_status check_codes(const char *name, const char *suffix, const tsr_stored_tensor *codes,
                              const char *type)
{
    return check_shape(name, suffix, codes, codes->shape[1], codes->shape[0], type);
}

static tsr_status take_scales(tsr_packed *p, const char *name, const char *suffix,
                              const tsr_stored_tensor *tensor, int64_t outer, int64_t inner)
{
    if (tensor != NULL && tensor->encoding != TSR_ENCODING_F32 &&
        tensor->encoding != TSR_ENCODING_F16 && tensor->encoding != TSR_ENCODING_BF16) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "%s%s: scales must be of f32, f16 or bf16", name,
                        suffix);
    }
    TSR_TRY(check_shape(name, suffix, tensor, outer, inner, tensor == NULL ? "" : tensor->type));
    p->scales = tensor->data;
    p->scale_type = tensor->encoding;
    return TSR_OK;
}

/* Columns that share a scale; 0: all. */
static int64_t group_size(const tsr_packing *how)
{
    return how->block_cols > 0 ? how->block_cols : how->group;
}

/* n > 0, in parts of `size`; 0: one part. */
static int64_t parts(int64_t n, int64_t size)
{
    return size > 0 ? (n - 1) / size + 1 : 1;
}

/* g_idx says nothing where groups follow one another; otherwise it is kept. */
static tsr_status take_groups(tsr_packed *p, const char *name, const char *suffix,
                              const tsr_stored_tensor *tensor)
{
    const int64_t group = p->how->group > 0 ? p->how->group : p->n_cols;
    bool in_order = true;

    if (tensor == NULL) {
        return TSR_OK;
    }
    TSR_TRY(check_shape(name, suffix, tensor, 1, p->n_cols, "I32"));
    for (int64_t c = 0; c < p->n_cols; c++) {
        int32_t g;

        memcpy(&g, (const uint8_t *)tensor->data + (size_t)c * sizeof(g), sizeof(g));
        if (g < 0 || g >= p->n_groups) {
            return tsr_fail(TSR_ERR_FORMAT, "%s%s: column %lld is in group %d of %lld", name,
                            suffix, (long long)c, (int)g, (long long)p->n_groups);
        }
        in_order = in_order && g == c / group;
    }
    p->groups = in_order ? NULL : (const uint8_t *)tensor->data;
    return TSR_OK;
}

static tsr_status find_gptq(tsr_packed *p, bool *found, const tsr_checkpoint *checkpoint,
                            const char *name)
{
    const int64_t per_word = WORD_BITS / p->how->bits;
    const tsr_stored_tensor *codes = find(p, checkpoint, name, ".qweight");
    const tsr_stored_tensor *zeros;

    *found = codes != NULL;
    if (!*found) {
        return TSR_OK;
    }
    TSR_TRY(check_codes(name, ".qweight", codes, "I32"));
    p->n_rows = codes->shape[0];
    p->n_cols = codes->shape[1] * per_word;
    p->n_groups = parts(p->n_cols, p->how->group);
    TSR_TRY(take_scales(p, name, ".scales", find(p, checkpoint, name, ".scales"), p->n_groups,
                        p->n_rows));
    zeros = find(p, checkpoint, name, ".qzeros");
    TSR_TRY(check_shape(name, ".qzeros", zeros, p->n_groups, parts(p->n_rows, per_word), "I32"));
    TSR_TRY(take_groups(p, name, ".g_idx", find(p, checkpoint, name, ".g_idx")));
    p->codes = codes->data;
    p->zeros = zeros->data;
    p->scale_row = 1;
    p->scale_group = p->n_rows;
    return TSR_OK;
}

static tsr_status find_awq(tsr_packed *p, bool *found, const tsr_checkpoint *checkpoint,
                           const char *name)
{
    const tsr_stored_tensor *codes = find(p, checkpoint, name, ".qweight");
    const tsr_stored_tensor *zeros;

    *found = codes != NULL;
    if (!*found) {
        return TSR_OK;
    }
    TSR_TRY(check_codes(name, ".qweight", codes, "I32"));
    p->n_rows = codes->shape[0] * 8;
    p->n_cols = codes->shape[1];
    p->n_groups = parts(p->n_cols, p->how->group);
    TSR_TRY(take_scales(p, name, ".scales", find(p, checkpoint, name, ".scales"), p->n_groups,
                        p->n_rows));
    zeros = find(p, checkpoint, name, ".qzeros");
    TSR_TRY(check_shape(name, ".qzeros", zeros, p->n_groups, p->n_rows / 8, "I32"));
    p->codes = codes->data;
    p->zeros = zeros->data;
    p->scale_row = 1;
    p->scale_group = p->n_rows;
    return TSR_OK;
}

/* Scales of e4m3 and of bytes: one in all, one a row, or one a block or group. */
static tsr_status take_spread_scales(tsr_packed *p, const char *name, const char *suffix,
                                     const tsr_stored_tensor *tensor)
{
    const int64_t rows = parts(p->n_rows, p->how->block_rows);

    p->n_groups = parts(p->n_cols, group_size(p->how));
    if (tensor != NULL && tensor->shape[0] == 1 && tensor->shape[1] == 1) {
        p->n_groups = 1;
        return take_scales(p, name, suffix, tensor, 1, 1);
    }
    if (p->how->block_rows > 0) {
        p->scale_row = p->n_groups; // of blocks of rows
        p->scale_group = 1;
        return take_scales(p, name, suffix, tensor, rows, p->n_groups);
    }
    p->scale_row = p->n_groups;
    p->scale_group = p->n_groups > 1 ? 1 : 0;
    return take_scales(p, name, suffix, tensor, p->n_rows, p->n_groups);
}

static tsr_status find_bytes(tsr_packed *p, bool *found, const tsr_checkpoint *checkpoint,
                             const char *name)
{
    const tsr_stored_tensor *codes = find(p, checkpoint, name, ".weight");
    const tsr_stored_tensor *scales = find(p, checkpoint, name, ".weight_scale_inv");
    const char *suffix = ".weight_scale_inv";

    if (scales == NULL) {
        suffix = ".weight_scale";
        scales = find(p, checkpoint, name, suffix);
    }
    *found = codes != NULL && scales != NULL;
    if (!*found) {
        return TSR_OK;
    }
    (void)find(p, checkpoint, name, ".input_scale"); // of activations, which stay as they are
    TSR_TRY(
        check_codes(name, ".weight", codes, p->how->kind == TSR_PACKING_FP8 ? "F8_E4M3" : "I8"));
    p->n_rows = codes->shape[1];
    p->n_cols = codes->shape[0];
    p->codes = codes->data;
    return take_spread_scales(p, name, suffix, scales);
}

static tsr_status find_words(tsr_packed *p, bool *found, const tsr_checkpoint *checkpoint,
                             const char *name)
{
    const int64_t per_word = WORD_BITS / p->how->bits;
    const tsr_stored_tensor *codes = find(p, checkpoint, name, ".weight_packed");
    const tsr_stored_tensor *shape;
    const tsr_stored_tensor *zeros;
    int64_t sizes[2];

    *found = codes != NULL;
    if (!*found) {
        return TSR_OK;
    }
    TSR_TRY(check_codes(name, ".weight_packed", codes, "I32"));
    shape = find(p, checkpoint, name, ".weight_shape");
    TSR_TRY(check_shape(name, ".weight_shape", shape, 1, 2, "I64"));
    memcpy(sizes, shape->data, sizeof(sizes));
    p->n_rows = codes->shape[1];
    p->n_cols = sizes[1];
    if (sizes[0] != p->n_rows || sizes[1] < 1 || parts(sizes[1], per_word) != codes->shape[0]) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s.weight_shape says [%lld, %lld], its codes are [%lld, %lld]", name,
                        (long long)sizes[0], (long long)sizes[1], (long long)codes->shape[1],
                        (long long)(codes->shape[0] * per_word));
    }
    TSR_TRY(
        take_spread_scales(p, name, ".weight_scale", find(p, checkpoint, name, ".weight_scale")));
    zeros = find(p, checkpoint, name, ".weight_zero_point");
    if (zeros != NULL) {
        TSR_TRY(check_shape(name, ".weight_zero_point", zeros, parts(p->n_rows, per_word),
                            p->n_groups, "I32"));
        p->zeros = zeros->data;
    }
    TSR_TRY(take_groups(p, name, ".weight_g_idx", find(p, checkpoint, name, ".weight_g_idx")));
    p->codes = codes->data;
    return TSR_OK;
}

static tsr_status find_blocks(tsr_packed *p, bool *found, const tsr_checkpoint *checkpoint,
                              const char *name)
{
    const tsr_stored_tensor *codes = find(p, checkpoint, name, "_blocks");
    const tsr_stored_tensor *scales = find(p, checkpoint, name, "_scales");

    *found = codes != NULL || scales != NULL;
    if (!*found) {
        return TSR_OK;
    }
    if (codes == NULL || scales == NULL) {
        return tsr_fail(TSR_ERR_FORMAT, "%s%s is missing", name,
                        codes == NULL ? "_blocks" : "_scales");
    }
    if (codes->n_dims != 4 || codes->shape[0] != BLOCK_BYTES || codes->n_bytes == 0 ||
        strcmp(codes->type, "U8") != 0) {
        return tsr_fail(TSR_ERR_FORMAT, "%s_blocks must be [experts, rows, groups, %d] of U8", name,
                        BLOCK_BYTES);
    }
    if (scales->n_dims != 3 || memcmp(scales->shape, codes->shape + 1, 3 * sizeof(int64_t)) != 0 ||
        strcmp(scales->type, "U8") != 0) {
        return tsr_fail(
            TSR_ERR_FORMAT, "%s_scales must be [%lld, %lld, %lld] of U8, as its blocks are", name,
            (long long)codes->shape[3], (long long)codes->shape[2], (long long)codes->shape[1]);
    }
    p->n_stack = codes->shape[3];
    p->n_rows = codes->shape[2];
    p->n_groups = codes->shape[1];
    p->n_cols = p->n_groups * p->how->group;
    p->codes = codes->data;
    p->scales = scales->data;
    p->scale_type = TSR_ENCODING_COUNT;
    p->scale_row = p->n_groups;
    p->scale_group = 1;
    return TSR_OK;
}

/* Runs have one scale for 32 columns, whose product with an integer code is exact. */
static tsr_format format_of(const tsr_packed *p)
{
    const bool runs =
        p->groups == NULL && (p->n_groups == 1 || group_size(p->how) % TSR_TILE_COLS == 0);

    if (p->how->kind == TSR_PACKING_MXFP4) {
        return TSR_FORMAT_FP4;
    }
    if (p->n_cols % TSR_TILE_COLS != 0 || p->n_groups > MOST_GROUPS ||
        (p->how->kind == TSR_PACKING_FP8 && !runs)) {
        return TSR_FORMAT_F32;
    }
    if (p->how->kind == TSR_PACKING_FP8) {
        return TSR_FORMAT_FP8;
    }
    if (!runs || p->scale_type == TSR_ENCODING_F32) {
        return p->how->bits == 4 ? TSR_FORMAT_Q4_MIXED : TSR_FORMAT_Q8_MIXED;
    }
    return p->how->bits == 4 ? TSR_FORMAT_Q4_WIDE : TSR_FORMAT_Q8_WIDE;
}

tsr_status tsr_packed_find(tsr_packed *out, bool *found, const tsr_packing *how,
                           const tsr_checkpoint *checkpoint, const char *name)
{
    static tsr_status (*const finders[TSR_PACKING_KIND_COUNT])(
        tsr_packed *, bool *, const tsr_checkpoint *, const char *) = {
        [TSR_PACKING_GPTQ] = find_gptq,   [TSR_PACKING_AWQ] = find_awq,
        [TSR_PACKING_FP8] = find_bytes,   [TSR_PACKING_WORDS] = find_words,
        [TSR_PACKING_BYTES] = find_bytes, [TSR_PACKING_MXFP4] = find_blocks,
    };
    tsr_packed p = {.how = how, .n_stack = 1};

    *found = false;
    if (how->kind == TSR_PACKING_NONE) {
        return TSR_OK;
    }
    TSR_TRY(finders[how->kind](&p, found, checkpoint, name));
    if (*found) {
        p.format = format_of(&p);
        *out = p;
    }
    return TSR_OK;
}

/* ---- reading --------------------------------------------------------------------------------- */

static uint32_t word_at(const uint8_t *words, int64_t i)
{
    uint32_t word;

    memcpy(&word, words + 4 * i, sizeof(word));
    return word;
}

static unsigned bits_at(const uint8_t *words, int64_t word, int64_t at, int bits)
{
    return word_at(words, word) >> (at * bits) & ((1U << bits) - 1U);
}

/* AWQ deals eight rows into a word in this order. */
static int64_t awq_place(int64_t row)
{
    static const int8_t places[8] = {0, 4, 1, 5, 2, 6, 3, 7};

    return places[row % 8];
}

/* n codes of a row; the first is that of column `first`, which begins a word. */
static void take_codes(const tsr_packed *p, int16_t *out, int64_t row, int64_t first, int64_t n)
{
    const int bits = p->how->bits;
    const int64_t per_word = WORD_BITS / bits;
    const bool down = p->how->kind == TSR_PACKING_GPTQ; // words of a row lie below one another
    const int64_t step = down ? p->n_rows : 1;
    const uint8_t *bytes = p->codes + row * p->n_cols + first;
    int64_t word = first / per_word * step + row * (down ? 1 : parts(p->n_cols, per_word));

    switch (p->how->kind) {
    case TSR_PACKING_GPTQ:
    case TSR_PACKING_WORDS:
        for (int64_t c = 0; c < n; word += step) {
            uint32_t codes = word_at(p->codes, word);

            for (int64_t end = c + per_word < n ? c + per_word : n; c < end; codes >>= bits) {
                out[c++] = (int16_t)(codes & ((1U << bits) - 1U));
            }
        }
        break;
    case TSR_PACKING_AWQ:
        for (int64_t c = 0; c < n; c++) {
            out[c] = (int16_t)bits_at(p->codes, ((first + c) * p->n_rows + row) / 8, awq_place(row),
                                      bits);
        }
        break;
    case TSR_PACKING_BYTES:
        for (int64_t c = 0; c < n; c++) {
            out[c] = (int8_t)bytes[c];
        }
        break;
    case TSR_PACKING_MXFP4:
        for (int64_t c = 0; c < n; c++) {
            const int64_t at = row * p->n_cols + first + c;

            out[c] = p->codes[at / 2] >> (at % 2 * 4) & 15;
        }
        break;
    default:
        for (int64_t c = 0; c < n; c++) {
            out[c] = bytes[c];
        }
        break;
    }
}

static int zero_at(const tsr_packed *p, int64_t row, int64_t group)
{
    const int bits = p->how->bits;
    const int64_t per_word = WORD_BITS / bits;
    unsigned zero;

    switch (p->how->kind) {
    case TSR_PACKING_GPTQ:
        zero = bits_at(p->zeros, group * parts(p->n_rows, per_word) + row / per_word,
                       row % per_word, bits);
        return (int)((zero + (p->how->zeros_less_one ? 1U : 0U)) & ((1U << bits) - 1U));
    case TSR_PACKING_AWQ:
        return (int)bits_at(p->zeros, (group * p->n_rows + row) / 8, awq_place(row), bits);
    case TSR_PACKING_WORDS:
        return p->zeros == NULL ? 1 << (bits - 1)
                                : (int)bits_at(p->zeros, row / per_word * p->n_groups + group,
                                               row % per_word, bits);
    default:
        return 0;
    }
}

static float scale_at(const tsr_packed *p, int64_t row, int64_t group)
{
    const int64_t block = p->how->block_rows > 0 ? row / p->how->block_rows : row;
    const int64_t at = block * p->scale_row + group * p->scale_group;
    float scale;

    if (p->scale_type == TSR_ENCODING_COUNT) {
        // A half of it, as the values of FP4 are doubled.
        return p->scales[at] == E8M0_NAN ? NAN : ldexpf(1.0F, p->scales[at] - 128);
    }
    tsr_encoding_decode(p->scale_type, &scale, p->scales, at, 1);
    return scale;
}

static int64_t group_of(const tsr_packed *p, int64_t col)
{
    int32_t g;

    if (p->groups == NULL) {
        return p->n_groups > 1 ? col / group_size(p->how) : 0;
    }
    memcpy(&g, p->groups + (size_t)col * sizeof(g), sizeof(g));
    return g;
}

static tsr_status no_number(const tsr_packed *p, int64_t row, int64_t col)
{
    return tsr_fail(TSR_ERR_FORMAT, "a %s in row %lld, column %lld is no number",
                    p->how->kind == TSR_PACKING_FP8 ? "code or a scale" : "scale", (long long)row,
                    (long long)col);
}

/* Codes of eight bits without sign are brought to -128..127 in tiles. */
static int less_by(const tsr_packed *p)
{
    return p->how->bits == 8 &&
                   (p->how->kind == TSR_PACKING_GPTQ || p->how->kind == TSR_PACKING_WORDS)
               ? 128
               : 0;
}

tsr_status tsr_packed_run(const tsr_packed *p, tsr_encoding_run *run, int64_t row, int64_t tile)
{
    const int64_t first = tile * TSR_TILE_COLS;
    const int64_t group = group_of(p, first);
    const float d = scale_at(p, row, group);
    const int zero = zero_at(p, row, group);
    const int less = less_by(p);
    bool sound = isfinite(d);
    int16_t codes[TSR_TILE_COLS];

    take_codes(p, codes, row, first, TSR_TILE_COLS);
    for (int64_t c = 0; c < TSR_TILE_COLS; c++) {
        run->q[c] = (int8_t)(codes[c] - less);
        sound = sound && (p->format != TSR_FORMAT_FP8 || (codes[c] & FP8_NAN) != FP8_NAN);
    }
    run->d[0] = run->d[1] = d;
    run->m[0] = run->m[1] = zero == less ? -0.0F : d * (float)(less - zero);
    return sound ? TSR_OK : no_number(p, row, first);
}

void tsr_packed_groups(const tsr_packed *p, uint16_t groups[TSR_TILE_COLS], int64_t tile)
{
    for (int c = 0; c < TSR_TILE_COLS; c++) {
        groups[c] = (uint16_t)group_of(p, tile * TSR_TILE_COLS + c);
    }
}

tsr_status tsr_packed_group(const tsr_packed *p, float *d, float *z, int64_t row, int64_t group)
{
    *d = scale_at(p, row, group);
    *z = (float)(zero_at(p, row, group) - less_by(p));
    return isfinite(*d) ? TSR_OK
                        : tsr_fail(TSR_ERR_FORMAT,
                                   "the scale of row %lld, group %lld is no "
                                   "number",
                                   (long long)row, (long long)group);
}

/* e2m1, doubled: 0, 1, 2, 3, 4, 6, 8, 12 and their negatives. */
static float fp4_value(int code)
{
    const int exponent = code >> 1 & 3;
    const int value = exponent == 0 ? code & 1 : (2 + (code & 1)) << (exponent - 1);

    return (code & 8) != 0 ? -(float)value : (float)value;
}

tsr_status tsr_packed_values(const tsr_packed *p, float *out, int64_t row, int64_t first, int64_t n)
{
    const int64_t skip = first % TSR_TILE_COLS; // codes are taken from where a word begins
    int16_t codes[TSR_TILE_COLS];

    for (int64_t at = first - skip; at < first + n; at += TSR_TILE_COLS) {
        const int64_t left = p->n_cols - at;

        take_codes(p, codes, row, at, left < TSR_TILE_COLS ? left : TSR_TILE_COLS);
        for (int64_t c = at < first ? first : at; c < at + TSR_TILE_COLS && c < first + n; c++) {
            const int64_t group = group_of(p, c);
            const float scale = scale_at(p, row, group);
            const int16_t code = codes[c - at];
            const float value =
                scale * (p->how->kind == TSR_PACKING_FP8 ? tsr_dtype_from_fp8((uint8_t)code)
                         : p->how->kind == TSR_PACKING_MXFP4
                             ? fp4_value(code)
                             : (float)(code - zero_at(p, row, group)));

            if (!isfinite(value)) {
                return no_number(p, row, c);
            }
            out[c - first] = value;
        }
    }
    return TSR_OK;
}

static bool ends_with(const tsr_stored_tensor *t, const char *ending)
{
    const size_t n = strlen(ending);

    return t->name.n_bytes >= n && memcmp(t->name.bytes + t->name.n_bytes - n, ending, n) == 0;
}

int64_t tsr_packed_count(const tsr_packing *how, const tsr_stored_tensor *tensor)
{
    static const char *const beside[] = {
        ".scales",           ".qzeros",       ".g_idx",
        ".weight_scale_inv", ".weight_scale", ".weight_zero_point",
        ".weight_g_idx",     ".weight_shape", ".input_scale",
        "_scales",
    };
    int64_t n = 1;

    for (size_t i = 0; how->kind != TSR_PACKING_NONE && i < sizeof(beside) / sizeof(beside[0]);
         i++) {
        if (ends_with(tensor, beside[i])) {
            return 0;
        }
    }
    for (int d = 0; d < tensor->n_dims; d++) {
        n *= tensor->shape[d];
    }
    if (tensor->type != NULL && strcmp(tensor->type, "I32") == 0 && how->bits > 0) {
        return n * (WORD_BITS / how->bits);
    }
    return how->kind == TSR_PACKING_MXFP4 && strcmp(tensor->type, "U8") == 0 ? 2 * n : n;
}

uint64_t tsr_packed_file_bytes(const tsr_packed *p, tsr_range rows, int64_t n_rows, tsr_range cols)
{
    const int64_t block = p->how->block_rows;
    const int64_t last = rows.first + rows.count - 1;
    const size_t scale_bytes =
        p->scale_type == TSR_ENCODING_COUNT ? 1 : tsr_encoding_row_bytes(p->scale_type, 1);
    int64_t n_groups = p->n_groups;
    int64_t scale_rows = n_rows;
    uint64_t bits;

    if (n_rows <= 0 || cols.count <= 0) {
        return 0;
    }
    if (p->groups == NULL) {
        n_groups = group_of(p, cols.first + cols.count - 1) - group_of(p, cols.first) + 1;
    }
    if (p->scale_row == 0) {
        scale_rows = 1;
    } else if (block > 0) {
        scale_rows = last / block - rows.first / block + 1;
    }
    bits = (uint64_t)n_rows * (uint64_t)(cols.count + (p->zeros != NULL ? n_groups : 0)) *
           (uint64_t)p->how->bits;
    return bits / 8 + (uint64_t)(scale_rows * n_groups) * (uint64_t)scale_bytes +
           (p->groups != NULL ? (uint64_t)cols.count * sizeof(int32_t) : 0);
}
