/*
 * examples/embed_client.c - Tessera at the service of a program that is not under MPI: it starts
 * the ranks and looks after them, or joins an engine that is there already.
 *
 *     cc embed_client.c $(pkg-config --cflags --libs tessera) -o embed_client
 *     embed_client model.gguf 2 "Why is the sky blue?"          # two ranks of its own
 *     embed_client --join /run/user/1000/llm "Why is the sky blue?"
 *
 * A model with a chat template is asked in it, another one continues the words. What it says goes
 * to stdout as it comes. Kill a rank meanwhile: there is a pause, and then it goes on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tessera.h>

/* Called by tsr_engine_step() for every token, and once at the end. */
static void show(void *ctx, const tsr_event *event)
{
    double *sum = ctx;

    (void)fwrite(event->text, 1, event->text_bytes, stdout);
    (void)fflush(stdout);
    if (event->kind == TSR_EVENT_TOKEN) {
        *sum += event->logprob;
    } else if (event->kind == TSR_EVENT_END) {
        const char *why = event->message != NULL ? event->message : "";

        (void)printf("\n");
        (void)fprintf(stderr, "%lld tokens, ended by %s%s%s, log-probability %.3f\n",
                      (long long)event->n_generated, event->reason, why[0] != '\0' ? ": " : "", why,
                      *sum);
    }
}

static tsr_status ask(tsr_engine *engine, const char *words)
{
    const tsr_model *model = tsr_engine_model(engine);
    const bool chats = tsr_model_describe(model).chat_template[0] != '\0';
    double sum = 0;
    tsr_generation generation = {
        .max_tokens = 64, .want_logprobs = true, .on_event = show, .ctx = &sum};
    int32_t *ids = NULL;
    int64_t id;
    bool busy = true;
    tsr_status st =
        chats ? tsr_model_chat_ids(model, NULL, words, &ids, &generation.n_prompt)
              : tsr_model_prompt_ids(model, words, strlen(words), &ids, &generation.n_prompt);

    generation.prompt = ids;
    if (st == TSR_OK) {
        st = tsr_engine_submit(engine, &generation, &id);
    }
    tsr_tessera_free(ids); // submit has copied them
    while (st == TSR_OK && busy) {
        st = tsr_engine_step(engine, &busy);
    }
    return st;
}

int main(int argc, char **argv)
{
    tsr_engine *engine = NULL;
    tsr_status st;

    if (argc != 4) {
        (void)fprintf(stderr, "usage: %s MODEL RANKS PROMPT | %s --join SOCKET PROMPT\n", argv[0],
                      argv[0]);
        return 2;
    }
    if (strcmp(argv[1], "--join") == 0) {
        st = tsr_engine_join(&engine, argv[2]);
    } else {
        const tsr_launch_options options = {.engine = {.model_path = argv[1]},
                                            .n_ranks = atoi(argv[2]),
                                            .launcher = getenv("LAUNCHER")};

        st = tsr_engine_launch(&engine, NULL, &options);
    }
    if (st == TSR_OK) {
        (void)fprintf(stderr, "%d ranks\n", tsr_engine_describe(engine).n_ranks);
        st = ask(engine, argv[3]);
    }
    if (st != TSR_OK) {
        (void)fprintf(stderr, "embed_client: %s\n", tsr_tessera_message());
    }
    tsr_engine_destroy(engine);
    return st == TSR_OK ? 0 : 1;
}
