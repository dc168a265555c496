/*
 * examples/embed_mpi.c - Tessera within an MPI program: every rank calls, the model is cut among
 * them, and rank 0 asks.
 *
 *     mpicc embed_mpi.c $(pkg-config --cflags --libs tessera) -o embed_mpi
 *     mpirun -n 2 embed_mpi model.gguf "Why is the sky blue?"
 *
 * A model with a chat template is asked in it, another one continues the words. What it says goes
 * to stdout as it comes.
 */
#include <stdio.h>
#include <string.h>

#include <mpi.h>
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
        (void)printf("\n");
        (void)fprintf(stderr, "%lld tokens, ended by %s, log-probability %.3f\n",
                      (long long)event->n_generated, event->reason, *sum);
    }
}

static tsr_status lead(tsr_engine *engine, const char *words)
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
    tsr_engine_options options = {.model_path = argc > 1 ? argv[1] : ""};
    tsr_engine *engine = NULL;
    int level;
    int rank;
    tsr_status st;

    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);

    st = tsr_engine_create(&engine, NULL, &options); // all ranks together: all succeed or all fail
    if (st == TSR_OK) {
        st = tsr_engine_is_leader(engine) ? lead(engine, argc > 2 ? argv[2] : "Once upon a time")
                                          : tsr_engine_follow(engine);
    }
    if (st != TSR_OK && rank == 0) {
        (void)fprintf(stderr, "embed_mpi: %s\n", tsr_tessera_message());
    }
    if (engine != NULL && tsr_engine_is_leader(engine) && tsr_engine_stop(engine) != TSR_OK) {
        st = TSR_ERR_COMM; // the others were to be let go, whatever had become of the question
    }
    tsr_engine_destroy(engine);
    MPI_Finalize();
    return st == TSR_OK ? 0 : 1;
}
