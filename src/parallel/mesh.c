#include "parallel/mesh.h"

#include "base/error.h"
#include "parallel/comm_mpi.h"

#include <unistd.h>

static int choose(struct mesh *m, int denoise, int codec, int default_codec)
{
    int size = m->world->size;
    if (size == 1) {
        if (denoise > 1 || codec > 1)
            return error_set(
                STATUS_INPUT,
                "denoise_ranks %d, codec_ranks %d: this run has 1 rank (start it with mpirun)",
                denoise, codec);
        m->denoise_ranks = m->codec_ranks = 1;
        return STATUS_OK;
    }
    if (denoise >= size || codec >= size)
        return error_set(
            STATUS_INPUT,
            "denoise_ranks %d, codec_ranks %d: together at most the %d ranks of this run, and "
            "at least one of each",
            denoise, codec, size);
    if (!codec) codec = default_codec;
    if (!denoise) denoise = size - codec;
    if (denoise + codec > size)
        return error_set(STATUS_INPUT,
                         "denoise_ranks %d + codec_ranks %d is more than the %d ranks of this run",
                         denoise, codec, size);
    m->denoise_ranks = denoise;
    m->codec_ranks = codec;
    return STATUS_OK;
}

/* A group of those who are in it, in the order of `place`; NULL on the others. */
static struct comm *split(struct world *w, bool in, int place, const char *name)
{
    MPI_Comm group;
    alarm(MPI_PATIENCE_S);
    CHECK_MPI(MPI_Comm_split(MPI_COMM_WORLD, in ? 0 : MPI_UNDEFINED, place, &group));
    alarm(0);
    return in ? comm_open_mpi(group, name, w->timeout_s) : NULL;
}

int mesh_create(struct mesh *m, struct world *w, int denoise_ranks, int codec_ranks,
                int default_codec_ranks)
{
    *m = (struct mesh){.world = w};
    TRY(choose(m, denoise_ranks, codec_ranks, default_codec_ranks));
    int rank = w->rank;
    m->denoises = rank < m->denoise_ranks;
    m->codes =
        w->size == 1 || (rank >= m->denoise_ranks && rank < m->denoise_ranks + m->codec_ranks);
    m->codec_index = m->codes && w->size > 1 ? rank - m->denoise_ranks : 0;
    m->idle_ranks = w->size == 1 ? 0 : w->size - m->denoise_ranks - m->codec_ranks;
    if (!w->mpi) {
        m->denoise_group = comm_open_self();
        m->codec_group = comm_open_self();
        return STATUS_OK;
    }
    m->denoise_group = split(w, m->denoises, rank, "denoise");
    m->codec_group = split(w, m->codes, rank, "codec");
    if (w->size > 1) m->everyone = split(w, true, m->codes ? rank : w->size + rank, "everyone");
    return STATUS_OK;
}

int mesh_create_codec(struct mesh *m, struct world *w)
{
    *m = (struct mesh){.world = w, .codec_ranks = w->size, .codes = true, .codec_index = w->rank};
    m->codec_group = w->mpi ? split(w, true, w->rank, "codec") : comm_open_self();
    return STATUS_OK;
}

void mesh_free(struct mesh *m)
{
    comm_close(m->denoise_group);
    comm_close(m->codec_group);
    comm_close(m->everyone);
}

const char *mesh_role_name(const struct mesh *m)
{
    if (m->denoises && m->codes) return "denoise+codec";
    return m->denoises ? "denoise" : m->codes ? "codec" : "idle";
}

int mesh_codec_of(const struct mesh *m, int shot) { return shot % m->codec_ranks; }

int mesh_codec_world_rank(const struct mesh *m, int codec_index)
{
    return m->world->size == 1 ? 0 : m->denoise_ranks + codec_index;
}
