/*
 * + - * / // % ** of numbers, strings and lists.
 */
#include <math.h>

#include "engine/jinja/jrun.h"

static tsr_status type_fault(tsr_jrun *run, const char *what, const tsr_jvalue *a,
                             const tsr_jvalue *b)
{
    if (a->kind == TSR_J_UNDEFINED || b->kind == TSR_J_UNDEFINED) {
        return tsr_jattribute_undefined(run, a->kind == TSR_J_UNDEFINED ? a : b);
    }
    return tsr_jvalue_fail(run, "'%s' cannot be done with '%s' and '%s'", what, tsr_jvalue_type(a),
                           tsr_jvalue_type(b));
}

static tsr_status beyond(tsr_jrun *run)
{
    return tsr_jvalue_fail(run, "a number beyond 64 bits");
}

static tsr_status join(tsr_jrun *run, const tsr_jtext *a, const tsr_jtext *b, tsr_jvalue *out)
{
    tsr_jbuilder builder = {0};
    const tsr_jtext *made;

    if (a->markup != b->markup) {
        TSR_TRY(tsr_jshow_html(run, a->markup ? &b : &a, a->markup ? b : a));
    }
    TSR_TRY(tsr_jtext_put_text(run, &builder, a));
    TSR_TRY(tsr_jtext_put_text(run, &builder, b));
    TSR_TRY(tsr_jtext_finish(run, &builder, &made));
    if (a->markup) {
        ((tsr_jtext *)(uintptr_t)made)->markup = true; // just made here
    }
    *out = tsr_jvalue_text(made);
    return TSR_OK;
}

tsr_status tsr_jarithmetic_add(tsr_jrun *run, const tsr_jvalue *a, const tsr_jvalue *b,
                               tsr_jvalue *out)
{
    int64_t sum;

    if (tsr_jvalue_is_whole(a) && tsr_jvalue_is_whole(b)) {
        if (__builtin_add_overflow(tsr_jvalue_whole(a), tsr_jvalue_whole(b), &sum)) {
            return beyond(run);
        }
        *out = tsr_jvalue_int(sum);
        return TSR_OK;
    }
    if (tsr_jvalue_is_number(a) && tsr_jvalue_is_number(b)) {
        *out = tsr_jvalue_float(tsr_jvalue_real(a) + tsr_jvalue_real(b));
        return TSR_OK;
    }
    if (a->kind == TSR_J_TEXT && b->kind == TSR_J_TEXT) {
        return join(run, a->as.text, b->as.text, out);
    }
    if (a->kind == b->kind && (a->kind == TSR_J_LIST || a->kind == TSR_J_TUPLE)) {
        tsr_jlist *list;

        TSR_TRY(tsr_jvalue_new_list(run, &list));
        for (int64_t i = 0; i < a->as.list->n_items; i++) {
            TSR_TRY(tsr_jvalue_append(run, list, a->as.list->items[i]));
        }
        for (int64_t i = 0; i < b->as.list->n_items; i++) {
            TSR_TRY(tsr_jvalue_append(run, list, b->as.list->items[i]));
        }
        *out = tsr_jvalue_list(a->kind, list);
        return TSR_OK;
    }
    return type_fault(run, "+", a, b);
}

/* A string or list so many times. */
static tsr_status repeat(tsr_jrun *run, const tsr_jvalue *what, int64_t times, tsr_jvalue *out)
{
    tsr_jbuilder b = {0};
    tsr_jlist *list;

    if (what->kind == TSR_J_TEXT) {
        for (int64_t i = 0; i < times && what->as.text->n_bytes > 0; i++) {
            TSR_TRY(tsr_jvalue_work(run, 1));
            TSR_TRY(tsr_jtext_put_text(run, &b, what->as.text));
        }
        return tsr_jtext_finish_value(run, &b, out);
    }
    TSR_TRY(tsr_jvalue_new_list(run, &list));
    for (int64_t i = 0; i < times && what->as.list->n_items > 0; i++) {
        for (int64_t k = 0; k < what->as.list->n_items; k++) {
            TSR_TRY(tsr_jvalue_append(run, list, what->as.list->items[k]));
        }
    }
    *out = tsr_jvalue_list(what->kind, list);
    return TSR_OK;
}

static bool can_repeat(const tsr_jvalue *v)
{
    return v->kind == TSR_J_TEXT || v->kind == TSR_J_LIST || v->kind == TSR_J_TUPLE;
}

static tsr_status power(tsr_jrun *run, int64_t base, int64_t exponent, tsr_jvalue *out)
{
    int64_t product = 1;

    if (exponent < 0) {
        if (base == 0) {
            return tsr_jvalue_fail(run, "zero to a negative power");
        }
        *out = tsr_jvalue_float(pow((double)base, (double)exponent));
        return TSR_OK;
    }
    if (base == 0 || base == 1 || base == -1) { // whatever the exponent
        *out = tsr_jvalue_int(exponent == 0 ? 1 : base == -1 && exponent % 2 == 0 ? 1 : base);
        return TSR_OK;
    }
    for (int64_t i = 0; i < exponent; i++) { // at most 63 times before it overflows
        if (__builtin_mul_overflow(product, base, &product)) {
            return beyond(run);
        }
    }
    *out = tsr_jvalue_int(product);
    return TSR_OK;
}

/* - * // % ** of whole numbers. */
static tsr_status whole_numbers(tsr_jrun *run, tsr_jnode_kind kind, int64_t a, int64_t b,
                                tsr_jvalue *out)
{
    int64_t result = 0;
    bool over = false;

    switch (kind) {
    case TSR_JN_SUBTRACT:
        over = __builtin_sub_overflow(a, b, &result);
        break;
    case TSR_JN_MULTIPLY:
        over = __builtin_mul_overflow(a, b, &result);
        break;
    case TSR_JN_POWER:
        return power(run, a, b, out);
    default: // // and %: towards minus infinity, the rest having the sign of b
        if (b == 0) {
            return tsr_jvalue_fail(run, "division by zero");
        }
        if (b == -1) { // the one quotient that overflows is here
            over = kind == TSR_JN_FLOOR && __builtin_sub_overflow((int64_t)0, a, &result);
            break;
        }
        result = kind == TSR_JN_FLOOR ? a / b : a % b;
        if (a % b != 0 && (a % b < 0) != (b < 0)) {
            result += kind == TSR_JN_FLOOR ? -1 : b;
        }
    }
    *out = tsr_jvalue_int(result);
    return over ? beyond(run) : TSR_OK;
}

static tsr_status real_numbers(tsr_jrun *run, tsr_jnode_kind kind, double a, double b,
                               tsr_jvalue *out)
{
    double result;

    if (b == 0 && (kind == TSR_JN_DIVIDE || kind == TSR_JN_FLOOR || kind == TSR_JN_MODULO)) {
        return tsr_jvalue_fail(run, "division by zero");
    }
    switch (kind) {
    case TSR_JN_SUBTRACT:
        result = a - b;
        break;
    case TSR_JN_MULTIPLY:
        result = a * b;
        break;
    case TSR_JN_DIVIDE:
        result = a / b;
        break;
    case TSR_JN_FLOOR:
        result = floor(a / b);
        break;
    case TSR_JN_MODULO:
        result = fmod(a, b);
        result += result != 0 && (result < 0) != (b < 0) ? b : 0;
        break;
    default:
        result = pow(a, b);
        if (isnan(result) && !isnan(a) && !isnan(b)) {
            return tsr_jvalue_fail(run, "a power that is no real number");
        }
    }
    *out = tsr_jvalue_float(result);
    return TSR_OK;
}

tsr_status tsr_jarithmetic_do(tsr_jrun *run, tsr_jnode_kind kind, const tsr_jvalue *a,
                              const tsr_jvalue *b, tsr_jvalue *out)
{
    static const char *const signs[TSR_JN_KIND_COUNT] = {
        [TSR_JN_SUBTRACT] = "-", [TSR_JN_MULTIPLY] = "*", [TSR_JN_DIVIDE] = "/",
        [TSR_JN_FLOOR] = "//",   [TSR_JN_MODULO] = "%",   [TSR_JN_POWER] = "**",
    };

    if (kind == TSR_JN_ADD) {
        return tsr_jarithmetic_add(run, a, b, out);
    }
    if (kind == TSR_JN_MODULO && a->kind == TSR_J_TEXT) {
        return tsr_jformat_percent(run, a->as.text, b, out);
    }
    if (kind == TSR_JN_MULTIPLY && can_repeat(a) && tsr_jvalue_is_whole(b)) {
        return repeat(run, a, tsr_jvalue_whole(b), out);
    }
    if (kind == TSR_JN_MULTIPLY && can_repeat(b) && tsr_jvalue_is_whole(a)) {
        return repeat(run, b, tsr_jvalue_whole(a), out);
    }
    if (!tsr_jvalue_is_number(a) || !tsr_jvalue_is_number(b)) {
        return type_fault(run, signs[kind], a, b);
    }
    if (kind != TSR_JN_DIVIDE && tsr_jvalue_is_whole(a) && tsr_jvalue_is_whole(b)) {
        return whole_numbers(run, kind, tsr_jvalue_whole(a), tsr_jvalue_whole(b), out);
    }
    return real_numbers(run, kind, tsr_jvalue_real(a), tsr_jvalue_real(b), out);
}
