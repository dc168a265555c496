#include "engine/checkpoint.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "engine/json_file.h"
#include "engine/safetensors.h"

enum {
    PATH_BYTES = 4096
};

struct tsr_checkpoint {
    tsr_gguf *gguf;           /* or */
    tsr_safetensors *tensors; /* of a folder */
    json_t *config;
    json_t *generation; /* NULL: the folder has none */
    char *folder;       /* owned */
};

static const char CONFIG[] = "config.json";
static const char GENERATION[] = "generation_config.json";

static tsr_status read_json(json_t **out, const tsr_checkpoint *c, const char *name)
{
    char path[PATH_BYTES];

    if (!tsr_checkpoint_path(c, name, path, sizeof(path))) {
        return tsr_fail(TSR_ERR_IO, "the path of %s is too long", name);
    }
    return tsr_json_file_read(out, path, name);
}

static tsr_status open_folder(tsr_checkpoint *c, const char *path)
{
    c->folder = tsr_alloc_text(path, strlen(path));
    if (c->folder == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to open a model's folder");
    }
    TSR_TRY(read_json(&c->config, c, CONFIG));
    if (c->config == NULL) {
        return tsr_fail(TSR_ERR_IO, "the folder %.200s has no %s", path, CONFIG);
    }
    TSR_TRY(read_json(&c->generation, c, GENERATION));
    return tsr_safetensors_open(&c->tensors, path);
}

tsr_status tsr_checkpoint_open(tsr_checkpoint **out, const char *path)
{
    tsr_checkpoint *c = tsr_alloc(1, sizeof(*c));
    struct stat facts;
    tsr_status st;

    if (c == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to open a model");
    }
    if (stat(path, &facts) == 0 && S_ISDIR(facts.st_mode)) {
        st = open_folder(c, path);
    } else {
        st = tsr_gguf_open(&c->gguf, path);
    }
    if (st != TSR_OK) {
        tsr_checkpoint_close(c);
        return st;
    }
    *out = c;
    return TSR_OK;
}

void tsr_checkpoint_close(tsr_checkpoint *c)
{
    if (c == NULL) {
        return;
    }
    tsr_safetensors_close(c->tensors);
    json_decref(c->generation);
    json_decref(c->config);
    tsr_free(c->folder);
    tsr_gguf_close(c->gguf);
    tsr_free(c);
}

const tsr_gguf *tsr_checkpoint_gguf(const tsr_checkpoint *c)
{
    return c->gguf;
}

tsr_hf_keys tsr_checkpoint_config(const tsr_checkpoint *c)
{
    return (tsr_hf_keys){c->config, CONFIG};
}

tsr_hf_keys tsr_checkpoint_generation(const tsr_checkpoint *c)
{
    return (tsr_hf_keys){c->generation, GENERATION};
}

bool tsr_checkpoint_path(const tsr_checkpoint *c, const char *name, char *path, size_t path_bytes)
{
    return c->folder != NULL &&
           snprintf(path, path_bytes, "%s/%s", c->folder, name) < (int)path_bytes;
}

int tsr_checkpoint_count(const tsr_checkpoint *c)
{
    return c->gguf != NULL ? tsr_gguf_tensor_count(c->gguf) : tsr_safetensors_count(c->tensors);
}

const tsr_stored_tensor *tsr_checkpoint_at(const tsr_checkpoint *c, int i)
{
    return c->gguf != NULL ? tsr_gguf_tensor_at(c->gguf, i) : tsr_safetensors_at(c->tensors, i);
}

const tsr_stored_tensor *tsr_checkpoint_find(const tsr_checkpoint *c, const char *name)
{
    return c->gguf != NULL ? tsr_gguf_find(c->gguf, name) : tsr_safetensors_find(c->tensors, name);
}

uint64_t tsr_checkpoint_file_bytes(const tsr_checkpoint *c)
{
    return c->gguf != NULL ? tsr_gguf_file_bytes(c->gguf) : tsr_safetensors_file_bytes(c->tensors);
}

void tsr_checkpoint_release_pages(const tsr_checkpoint *c)
{
    if (c->gguf != NULL) {
        tsr_gguf_release_pages(c->gguf);
    } else {
        tsr_safetensors_release_pages(c->tensors);
    }
}
