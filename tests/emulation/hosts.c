/* Several hosts on one, for tests: a library that is loaded ahead (LD_PRELOAD) into every rank. Each
 * RINGREEL_EMULATION_HOST_RANKS ranks after one another are on a host of their own name, and MPI
 * groups the ranks of a host accordingly. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int number(const char *name)
{
    const char *text = getenv(name);
    return text ? atoi(text) : 0;
}

static int ranks_of_host(void)
{
    int ranks = number("RINGREEL_EMULATION_HOST_RANKS");
    return ranks > 0 ? ranks : 1;
}

int gethostname(char *name, size_t size)
{
    snprintf(name, size, "host%d", number("OMPI_COMM_WORLD_RANK") / ranks_of_host());
    return 0;
}

int MPI_Comm_split_type(MPI_Comm comm, int type, int key, MPI_Info info, MPI_Comm *out)
{
    int rank;
    if (type != MPI_COMM_TYPE_SHARED) return PMPI_Comm_split_type(comm, type, key, info, out);
    PMPI_Comm_rank(comm, &rank);
    return PMPI_Comm_split(comm, rank / ranks_of_host(), key, out);
}
