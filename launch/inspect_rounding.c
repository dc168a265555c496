#include "launch/inspect_rounding.h"

#include <inttypes.h>
#include <string.h>

#include "launch/out.h"

static void print_one(void *ctx, const tsr_model_rounded *r)
{
    const char *name = r->name == NULL ? "all of them" : r->name;

    (void)ctx;
    if (r->name == NULL && r->n_elements == 0) {
        tsr_out_print("  none: no tensor is plain and made of runs of 32\n");
        return;
    }
    tsr_out_print("  ");
    tsr_out_words(name);
    tsr_out_print("%*s %12" PRIu64 " %10.4f %% %12.3g\n",
                  strlen(name) < 48 ? 48 - (int)strlen(name) : 0, "", r->n_elements,
                  100 * r->relative, r->largest);
}

tsr_status tsr_inspect_rounding_print(const tsr_model *model, const char *to)
{
    tsr_out_print("\nrounded to %s: root mean square of the differences as a part of the values', "
                  "and the largest\n",
                  to);
    tsr_out_print("  %-48s %12s %12s %12s\n", "tensor", "elements", "error", "largest");
    return tsr_model_round(model, to, print_one, NULL);
}

/* ctx: the object {"to", "tensors", "total"}; what cannot be added shows in what is missing. */
static void add_one(void *ctx, const tsr_model_rounded *r)
{
    json_t *root = ctx;
    json_t *one =
        json_pack("{s:I, s:o, s:o}", "elements", (json_int_t)r->n_elements, "relative",
                  tsr_out_json_real(r->relative), "largest", tsr_out_json_real(r->largest));

    if (r->name == NULL) {
        (void)json_object_set_new(root, "total", one);
        return;
    }
    (void)json_object_set_new(one, "name", tsr_out_json_text(r->name, strlen(r->name)));
    (void)json_array_append_new(json_object_get(root, "tensors"), one);
}

tsr_status tsr_inspect_rounding_json(json_t **out, const tsr_model *model, const char *to)
{
    json_t *root = json_pack("{s:s, s:[]}", "to", to, "tensors");
    const tsr_status st = root == NULL ? TSR_OK : tsr_model_round(model, to, add_one, root);

    if (st != TSR_OK) {
        json_decref(root);
        return st;
    }
    *out = root;
    return TSR_OK;
}
