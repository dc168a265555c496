#include "kernels/tiles.cuh"

enum {
    THREADS = 256
};

/* A thread an element; a row that is not here is zeros. */
template <tsr_format F>
static __global__ void embed_rows(tsr_rows<double> sums, const int32_t *ids, const char *tiles,
                                  int64_t n_rows, int64_t n_cols, int64_t first_id, bool add)
{
    const int64_t own = ids[blockIdx.x] - first_id;
    const int64_t c = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    const int64_t n_tiles = (n_cols + TSR_TILE_COLS - 1) / TSR_TILE_COLS;

    if (c < n_cols) {
        const bool is_here = own >= 0 && own < n_rows;
        const char *tile =
            tiles + (size_t)((is_here ? own : 0) / TSR_PANEL_ROWS * n_tiles + c / TSR_TILE_COLS) *
                        tsr_tile_bytes(F);

        const double element = is_here
                                   ? (double)tsr_tile_element<F>(tile, (int)(own % TSR_PANEL_ROWS),
                                                                 (int)(c % TSR_TILE_COLS))
                                   : 0.0;

        if (!add) {
            sums[blockIdx.x][c] = element;
        } else if (is_here) {
            sums[blockIdx.x][c] += element;
        }
    }
}

extern "C" tsr_status tsr_embed_cuda(tsr_device *dev, tsr_tensor sums, tsr_tensor ids,
                                     const tsr_weight *table, int64_t first_id, bool add)
{
    const dim3 grid((unsigned)sums.n_rows, tsr_blocks(sums.n_cols, THREADS));

#define EMBED(format)                                                                     \
    embed_rows<format><<<grid, THREADS, 0, tsr_cuda_queue(dev)>>>(                        \
        tsr_rows_of<double>(sums), (const int32_t *)ids.data, (const char *)table->tiles, \
        table->n_rows, table->n_cols, first_id, add)
    TSR_FOR_FORMAT(table->format, EMBED);
#undef EMBED
    TSR_CUDA_LAUNCHED();
    return TSR_OK;
}
