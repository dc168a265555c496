/*
 * Every family, from a Hugging Face folder, against an independent implementation: logits, greedy
 * tokens and log-probabilities of tests/data/models/<folder>/reference.json (README.md there says
 * how closely), with f32 activations and an f32 cache, in the old and the new style of config.json;
 * and the same bit for bit on every number of ranks.
 *
 * argv[1]: what the run on one rank writes and the others are held to; "-": nothing. Further
 * arguments: "--dtype", then weights and cache are of bf16 and of f16 and held to how far the
 * reference says that such an evaluation goes astray; a folder of folders, ending in '/', in the
 * place of tests/data/models; only these folders; NAME=PATH, another file or folder that must give
 * what the folder NAME gives.
 */
#include "engine/tessera.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/stat.h>

#include <jansson.h>

#include "parallel/world.h"

enum {
    MOST_VOCAB = 1024,
    N_SEQUENCES = 3,
    N_RUNS = N_SEQUENCES + 1, // the last is the prompt of text
    MOST_PROMPT = 256,
    MOST_NEW = 32,
    N_TOP = 5,
    MOST_FOLDERS = 128,
    NAME_BYTES = 64,
    PATH_BYTES = 512
};

#define LOGIT_TOLERANCE 5e-4
#define SUM_TOLERANCE 2e-3
#define CLEAR_MARGIN 1e-3

/* What one prompt gave. */
typedef struct outcome {
    int32_t prompt[MOST_PROMPT];
    int32_t n_prompt;
    int32_t ids[MOST_NEW];
    int32_t n_ids;
    int32_t n_scores;
    int32_t n_vocab;
    float logits[MOST_VOCAB]; /* of the last prompt position */
    double logprobs[MOST_PROMPT];
    tsr_top_token top[MOST_PROMPT][N_TOP]; /* after each prompt position */
} outcome;

static tsr_world *world;
static const char *folders = TSR_TEST_DATA "/models";
static outcome got[N_RUNS];
static int n_failed;

static void note_event(void *ctx, const tsr_event *event)
{
    outcome *o = ctx;

    switch (event->kind) {
    case TSR_EVENT_TOKEN:
        if (o->n_ids < MOST_NEW) {
            o->ids[o->n_ids++] = event->token;
        }
        break;
    case TSR_EVENT_LOGITS:
        if (event->position == o->n_prompt - 1) {
            memcpy(o->logits, event->logits, (size_t)o->n_vocab * sizeof(float));
        }
        break;
    case TSR_EVENT_SCORE:
        if (event->position < MOST_PROMPT) {
            o->logprobs[event->position] = event->logprob;
            o->n_scores++;
            for (int i = 0; i < event->n_top && i < N_TOP; i++) { // no padding: it is compared
                o->top[event->position][i].id = event->top[i].id;
                o->top[event->position][i].logprob = event->top[i].logprob;
            }
        }
        break;
    default:
        if (strcmp(event->reason, "length") != 0) {
            (void)printf("a generation ended for \"%s\": %s\n", event->reason,
                         event->message == NULL ? "" : event->message);
            n_failed++;
        }
        break;
    }
}

static void must(tsr_status st)
{
    if (st != TSR_OK) {
        tsr_world_abort(world, st);
    }
}

/* All ranks together: runs whose prompts are in got[]. dtype  of weights and cache; NULL: weights
 * as they are, a cache of f32. False, in words, when the model is refused. */
static bool run_model(const char *path, int64_t chunk, const char *dtype)
{
    const tsr_engine_options options = {.model_path = path,
                                        .dtype = dtype,
                                        .kv_dtype = dtype == NULL ? "f32" : dtype,
                                        .activations = "f32",
                                        .context = MOST_PROMPT,
                                        .n_threads = 1,
                                        .max_sequences = N_RUNS,
                                        .max_batch_tokens = (int)chunk,
                                        .block_tokens = 16};
    tsr_engine *engine = NULL;
    bool busy = true;
    int64_t id;

    if (tsr_engine_create(&engine, world, &options) != TSR_OK) {
        (void)printf("%s: %s\n", path, tsr_tessera_message());
        return false;
    }
    if (!tsr_engine_is_leader(engine)) {
        must(tsr_engine_follow(engine));
        tsr_engine_destroy(engine);
        return true;
    }
    for (int i = 0; i < N_RUNS && got[i].n_prompt > 0; i++) { // some folders have no text
        const tsr_generation g = {.prompt = got[i].prompt,
                                  .n_prompt = got[i].n_prompt,
                                  .max_tokens = i < N_SEQUENCES ? MOST_NEW : MOST_NEW / 2,
                                  .ignore_end = true,
                                  .score = true,
                                  .want_logits = true,
                                  .want_logprobs = true,
                                  .n_top = N_TOP,
                                  .on_event = note_event,
                                  .ctx = &got[i]};

        must(tsr_engine_submit(engine, &g, &id));
    }
    while (busy) {
        must(tsr_engine_step(engine, &busy));
    }
    must(tsr_engine_stop(engine));
    tsr_engine_destroy(engine);
    return true;
}

/* ---- against the reference --------------------------------------------------------------------
 */

static int read_ids(int32_t *ids, const json_t *list, int most)
{
    const int n = (int)json_array_size(list);

    for (int i = 0; i < n && i < most; i++) {
        ids[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    }
    return n < most ? n : most;
}

static const json_t *run_of(const json_t *reference, int i)
{
    return i < N_SEQUENCES ? json_array_get(json_object_get(reference, "sequences"), (size_t)i)
                           : json_object_get(reference, "text");
}

static void read_prompts(const json_t *reference)
{
    const size_t n_vocab = json_array_size(json_object_get(run_of(reference, 0), "last_logits"));

    memset(got, 0, sizeof(got));
    for (int i = 0; i < N_RUNS; i++) {
        got[i].n_vocab = n_vocab < MOST_VOCAB ? (int32_t)n_vocab : MOST_VOCAB;
        got[i].n_prompt =
            read_ids(got[i].prompt, json_object_get(run_of(reference, i), "ids"), MOST_PROMPT);
    }
}

static double number_at(const json_t *list, int i)
{
    return json_number_value(json_array_get(list, (size_t)i));
}

/* After one position, the largest distance of the likeliest tokens' logits: what is told are
 * log-probabilities, and what two tokens are apart is the same in both. */
static double compare_top(const tsr_top_token *top, const json_t *ids, const json_t *logits)
{
    double worst = 0;
    double offset = NAN;

    for (int i = 0; i < N_TOP; i++) {
        for (int k = 0; k < (int)json_array_size(ids); k++) { // neighbours may change places
            if ((int32_t)number_at(ids, k) == top[i].id) {
                offset = isnan(offset) ? top[i].logprob - number_at(logits, k) : offset;
                worst = fmax(worst, fabs(top[i].logprob - number_at(logits, k) - offset));
            }
        }
    }
    return isnan(offset) ? INFINITY : worst;
}

/* The largest distance of logits and log-probabilities; ids that differ are counted. */
static double compare(const json_t *reference, double *worst_sum, int *n_wrong_ids)
{
    double worst = 0;

    *worst_sum = 0;
    *n_wrong_ids = 0;
    for (int i = 0; i < N_RUNS; i++) {
        const json_t *run = run_of(reference, i);
        const json_t *logits = json_object_get(run, "last_logits");
        const json_t *logprobs = json_object_get(run, "token_logprobs");
        const json_t *top_ids = json_object_get(run, "top5_ids");
        const json_t *top_logits = json_object_get(run, "top5_logits");
        const json_t *ids = json_object_get(run, "greedy_ids");
        const json_t *margins = json_object_get(run, "greedy_margins");
        double sum = 0;

        for (int t = 0; t < (int)json_array_size(logits) && t < MOST_VOCAB; t++) {
            worst = fmax(worst, fabs((double)got[i].logits[t] - number_at(logits, t)));
        }
        for (int t = 0; t < (int)json_array_size(logprobs); t++) {
            worst = fmax(worst, fabs(got[i].logprobs[t] - number_at(logprobs, t)));
            sum += got[i].logprobs[t];
        }
        for (size_t t = 0; t < json_array_size(top_ids); t++) {
            worst = fmax(worst, compare_top(got[i].top[t], json_array_get(top_ids, t),
                                            json_array_get(top_logits, t)));
        }
        if (logprobs != NULL) {
            *worst_sum = fmax(*worst_sum,
                              fabs(sum - json_number_value(json_object_get(run, "logprob_sum"))));
        }
        for (int t = 0; t < (int)json_array_size(ids); t++) {
            if (margins != NULL && number_at(margins, t) < CLEAR_MARGIN) {
                break;
            }
            *n_wrong_ids += t >= got[i].n_ids || got[i].ids[t] != (int32_t)number_at(ids, t);
        }
    }
    return worst;
}

/* ---- folders ----------------------------------------------------------------------------------
 */

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* The folders of `folders`, sorted. */
static int list_folders(char names[][NAME_BYTES])
{
    DIR *dir = opendir(folders);
    const struct dirent *entry;
    int n = 0;

    while (dir != NULL && (entry = readdir(dir)) != NULL && n < MOST_FOLDERS) {
        if (strchr(entry->d_name, '.') == NULL && strlen(entry->d_name) < NAME_BYTES) {
            (void)snprintf(names[n++], NAME_BYTES, "%.63s", entry->d_name);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    qsort(names, (size_t)n, NAME_BYTES, by_name);
    return n;
}

/* A folder beside with config_v5.json as config.json and links to the rest; or take it away. */
static void make_v5(const char *from, const char *to, bool make)
{
    DIR *dir = opendir(make ? from : to);
    const struct dirent *entry;
    char old_path[PATH_BYTES];
    char new_path[PATH_BYTES];

    if (make) {
        (void)mkdir(to, 0700);
    }
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        const bool is_v5 = strcmp(entry->d_name, "config_v5.json") == 0;

        (void)snprintf(old_path, sizeof(old_path), "%s/%s", from, entry->d_name);
        (void)snprintf(new_path, sizeof(new_path), "%s/%s", to,
                       is_v5 ? "config.json" : entry->d_name);
        if (entry->d_name[0] == '.' || (make && strcmp(entry->d_name, "config.json") == 0)) {
            continue;
        }
        if (make ? symlink(old_path, new_path) != 0 : unlink(new_path) != 0) {
            (void)printf("%s cannot be %s\n", new_path, make ? "linked" : "taken away");
            n_failed++;
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    if (!make) {
        (void)rmdir(to);
    }
}

/* *path is what follows the name's '=', or NULL. */
static bool is_wanted(const char *name, const char **path, int argc, char **argv)
{
    const size_t n = strlen(name);

    *path = NULL;
    for (int i = 2; i < argc; i++) {
        if (strncmp(argv[i], name, n) == 0 && (argv[i][n] == '\0' || argv[i][n] == '=')) {
            *path = argv[i][n] == '=' ? argv[i] + n + 1 : NULL;
            return true;
        }
    }
    return argc <= 2;
}

/* Is what the ranks gave what one rank gave? On one rank it is written down. */
static bool is_golden(FILE *golden)
{
    static outcome one[N_RUNS];

    if (golden == NULL) {
        return true;
    }
    if (tsr_world_size(world) == 1) {
        return fwrite(got, sizeof(got), 1, golden) == 1;
    }
    return fread(one, sizeof(one), 1, golden) == 1 && memcmp(one, got, sizeof(got)) == 0;
}

/* One folder on all ranks, in one piece and again in chunks of 48 rows, in both styles of
 * config.json. */
static void test_folder(const char *name, const char *model, FILE *golden)
{
    static outcome whole[N_RUNS];
    const bool leader = tsr_world_is_leader(world);
    const bool alone = tsr_world_size(world) == 1;
    char path[PATH_BYTES];
    char v5[PATH_BYTES + 16];
    json_t *reference = NULL;
    double worst;
    double sum;
    int n_wrong;
    bool same;
    bool same_chunked;

    (void)snprintf(path, sizeof(path), "%s/%s/reference.json", folders, name);
    reference = json_load_file(path, 0, NULL);
    (void)snprintf(path, sizeof(path), "%s/%s", folders, name);
    model = model == NULL ? path : model;
    read_prompts(reference);
    if (!run_model(model, 512, NULL)) {
        (void)printf("%-14s %d ranks  not opened\n", name, tsr_world_size(world));
        n_failed++;
        json_decref(reference);
        return;
    }
    worst = compare(reference, &sum, &n_wrong);
    same = !leader || is_golden(golden);
    memcpy(whole, got, sizeof(got));
    read_prompts(reference);
    (void)run_model(model, 48, NULL);
    same_chunked = memcmp(whole, got, sizeof(got)) == 0;
    (void)snprintf(v5, sizeof(v5), "%s/config_v5.json", path);
    if (alone && model == path && access(v5, F_OK) == 0) {
        (void)snprintf(v5, sizeof(v5), "/tmp/tsr_test_models_%d", (int)getpid());
        make_v5(path, v5, true);
        read_prompts(reference);
        same_chunked =
            run_model(v5, 512, NULL) && memcmp(whole, got, sizeof(got)) == 0 && same_chunked;
        make_v5(path, v5, false);
    }
    if (leader) {
        const bool good = worst <= LOGIT_TOLERANCE && sum <= SUM_TOLERANCE && n_wrong == 0 &&
                          same && same_chunked;

        (void)printf("%-14s %d ranks  logits %.1e  sum %.1e  %d tokens differ  %s%s%s\n", name,
                     tsr_world_size(world), worst, sum, n_wrong, good ? "ok" : "WRONG",
                     same ? "" : ", not as on one rank",
                     same_chunked ? "" : ", not the same in chunks or from config_v5.json");
        n_failed += good ? 0 : 1;
    }
    json_decref(reference);
}

/* ---- weights and cache of 16 bits --------------------------------------------------------------
 */

/* How far such an evaluation may go from the reference. */
typedef struct allowance {
    bool is_largest; // of the largest distance of logits; else of their rms
    double distance;
    int n_wrong; // tokens
} allowance;

/* tests/data/models/README.md: "rms <= 2 x the rms given there, top-1 equal where the margin
 * exceeds 4 x that rms"; where there are experts, as many may differ as did there, for another
 * expert is taken now and then. Packed folders say no rms: they are llamas in its third form. Our
 * own forms say the largest distance. */
static allowance allowance_of(const char *name, const json_t *reference, const char *dtype)
{
    static const char experts[] = " mixtral qwen2_moe qwen3_moe gpt_oss deepseek_v2 ";
    const json_t *measured = json_object_get(reference, "measured");
    allowance a = {.is_largest = name[0] == 'x'};
    json_t *llama = NULL;
    char text[PATH_BYTES];

    if (strncmp(name, "q_", 2) == 0) {
        (void)snprintf(text, sizeof(text), "%s/llama3/reference.json", folders);
        llama = json_load_file(text, 0, NULL);
        measured = json_object_get(llama, "measured");
    }
    (void)snprintf(text, sizeof(text), "rms_diff_%s_activations", dtype);
    a.distance = a.is_largest
                     ? json_number_value(json_object_get(measured, "max_abs_diff_bf16_activations"))
                     : 2 * json_number_value(json_object_get(measured, text));
    (void)snprintf(text, sizeof(text), " %s ", name);
    if (strstr(experts, text) != NULL) {
        (void)snprintf(text, sizeof(text), "same_top1_%s_activations", dtype);
        a.n_wrong = (int)ceil((1 - json_number_value(json_object_get(measured, text))) *
                              (got[0].n_prompt + got[1].n_prompt + got[2].n_prompt));
    }
    json_decref(llama);
    return a;
}

/* The distance of logits behind the prompts. Tokens that differ from the likeliest ones, though
 * those lead by more than twice what is allowed, are counted: behind all prompt positions, and
 * generated ones until one does or a lead is less. */
static double compare_rounded(const json_t *reference, const allowance *allowed, int *n_wrong_ids)
{
    const double clear = 2 * allowed->distance;
    double squares = 0;
    double most = 0;
    int n = 0;

    *n_wrong_ids = 0;
    for (int i = 0; i < N_SEQUENCES; i++) {
        const json_t *run = run_of(reference, i);
        const json_t *logits = json_object_get(run, "last_logits");
        const json_t *top_ids = json_object_get(run, "top5_ids");
        const json_t *top_logits = json_object_get(run, "top5_logits");
        const json_t *ids = json_object_get(run, "greedy_ids");
        const json_t *margins = json_object_get(run, "greedy_margins");

        for (int t = 0; t < (int)json_array_size(logits) && t < MOST_VOCAB; t++, n++) {
            const double distance = fabs((double)got[i].logits[t] - number_at(logits, t));

            squares += distance * distance;
            most = fmax(most, distance);
        }
        for (size_t t = 0; t < json_array_size(top_ids); t++) {
            const json_t *best = json_array_get(top_logits, t);

            *n_wrong_ids += number_at(best, 0) - number_at(best, 1) > clear &&
                            got[i].top[t][0].id != (int)number_at(json_array_get(top_ids, t), 0);
        }
        for (int t = 0; t < (int)json_array_size(ids) && number_at(margins, t) > clear; t++) {
            if (t >= got[i].n_ids || got[i].ids[t] != (int32_t)number_at(ids, t)) {
                ++*n_wrong_ids;
                break;
            }
        }
    }
    return allowed->is_largest ? most : sqrt(squares / n);
}

static void test_rounded(const char *name, FILE *golden)
{
    static const char *const dtypes[] = {"bf16", "f16"};
    const bool leader = tsr_world_is_leader(world);
    char path[PATH_BYTES];
    json_t *reference = NULL;

    (void)snprintf(path, sizeof(path), "%s/%s/reference.json", folders, name);
    reference = json_load_file(path, 0, NULL);
    (void)snprintf(path, sizeof(path), "%s/%s", folders, name);
    for (int d = 0; d < 2 && json_object_get(reference, "measured") != NULL; d++) {
        allowance allowed;
        double is;
        int n_wrong;
        bool same;

        read_prompts(reference);
        allowed = allowance_of(name, reference, dtypes[d]);
        if (!run_model(path, 512, dtypes[d])) {
            n_failed++;
            continue;
        }
        is = compare_rounded(reference, &allowed, &n_wrong);
        same = !leader || is_golden(golden);
        if (leader) {
            const bool good = is <= allowed.distance && n_wrong <= allowed.n_wrong && same;

            (void)printf("%-14s %d ranks  %-4s  %s %.1e of %.1e  %d tokens of %d differ  %s%s\n",
                         name, tsr_world_size(world), dtypes[d], allowed.is_largest ? "max" : "rms",
                         is, allowed.distance, n_wrong, allowed.n_wrong, good ? "ok" : "WRONG",
                         same ? "" : ", not as on one rank");
            n_failed += good ? 0 : 1;
        }
    }
    json_decref(reference);
}

/* Positions of long texts turn otherwise: a generation that grows beyond the limit of 128 goes on
 * as if all of it had been the prompt. */
static void test_growing_long(void)
{
    static outcome grown[N_RUNS];
    const char *path = TSR_TEST_DATA "/models/phi3_longrope";
    const int first = 112;
    int n_wrong = 0;

    memset(got, 0, sizeof(got));
    got[0].n_prompt = first;
    for (int t = 0; t < first; t++) {
        got[0].prompt[t] = 3 + t * 37 % 480;
    }
    (void)run_model(path, 512, NULL);
    memcpy(grown, got, sizeof(got));
    for (int n = 12; n < 24; n += N_RUNS) {
        memset(got, 0, sizeof(got));
        for (int i = 0; i < N_RUNS; i++) {
            got[i].n_prompt = first + n + i;
            memcpy(got[i].prompt, grown[0].prompt, (size_t)first * sizeof(int32_t));
            memcpy(got[i].prompt + first, grown[0].ids, (size_t)(n + i) * sizeof(int32_t));
        }
        (void)run_model(path, 48, NULL);
        for (int i = 0; i < N_RUNS; i++) {
            n_wrong += got[i].ids[0] != grown[0].ids[n + i];
        }
    }
    if (tsr_world_is_leader(world)) {
        (void)printf("growing beyond 128 tokens: %d of 12 tokens differ\n", n_wrong);
        n_failed += n_wrong > 0;
    }
}

int main(int argc, char **argv)
{
    static char names[MOST_FOLDERS][NAME_BYTES];
    FILE *golden = NULL;
    const char *path;
    bool rounded = false;
    int n_tested = 0;
    int n;

    if (tsr_world_open(&world) != TSR_OK) {
        return EXIT_FAILURE;
    }
    if (argc > 1 && strcmp(argv[1], "-") != 0 && tsr_world_is_leader(world)) {
        golden = fopen(argv[1], tsr_world_size(world) == 1 ? "wb" : "rb");
    }
    if (argc > 2 && strcmp(argv[2], "--dtype") == 0) {
        rounded = true;
        argv++;
        argc--;
    }
    if (argc > 2 && argv[2][0] != '\0' && argv[2][strlen(argv[2]) - 1] == '/') {
        folders = argv[2];
        argv++;
        argc--;
    }
    n = list_folders(names);
    for (int i = 0; i < n; i++) {
        if (is_wanted(names[i], &path, argc, argv)) {
            if (rounded) {
                test_rounded(names[i], golden);
            } else {
                test_folder(names[i], path, golden);
            }
            n_tested++;
        }
    }
    if (!rounded && strcmp(folders, TSR_TEST_DATA "/models") == 0 &&
        is_wanted("phi3_longrope", &path, argc, argv) && path == NULL) {
        test_growing_long();
    }
    if (golden != NULL) {
        (void)fclose(golden);
    }
    if (tsr_world_is_leader(world)) {
        (void)printf("%d folders, %d wrong\n", n_tested, n_failed);
    }
    n_failed += n_tested == 0 ? 1 : 0;
    tsr_world_close(world);
    return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
