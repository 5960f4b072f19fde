/* plain ordered|unordered|unguarded: a C program linked against NVIDIA's libraries; linking.sh starts it on the emulated
 * ones. Every rank multiplies its rows of X by W with cuBLASLt, sends the product around the ring
 * with NCCL on a second stream, and adds up what has come by on the host. "good" from every rank.
 * unordered: forgets the event between the streams; unguarded: reads device memory on the host. */
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <math.h>
#include <mpi.h>
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(call)                                                                                \
    do {                                                                                           \
        int status_ = (int)(call);                                                                 \
        if (status_) {                                                                             \
            fprintf(stderr, "%s:%d: %s gave %d\n", __FILE__, __LINE__, #call, status_);            \
            MPI_Abort(MPI_COMM_WORLD, 1);                                                          \
        }                                                                                          \
    } while (0)

enum { M = 32, N = 24, K = 64 };

static int rank, size;

static float x_at(int r, int i, int k) { return (float)((i * 5 + k * 3 + r * 7) % 11 - 5); }
static float w_at(int j, int k) { return (float)((j * 2 + k) % 7 - 3); }

/* Y[M, N] = X[M, K] W[N, K]^T, all row-major: in cuBLASLt's columns Y^T = W X^T. */
static void multiply(cublasLtHandle_t lt, const float *x, const float *w, float *y, cudaStream_t s)
{
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t lw, lx, ly;
    cublasOperation_t transposed = CUBLAS_OP_T;
    const float one = 1, zero = 0;
    CHECK(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    CHECK(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                         sizeof transposed));
    CHECK(cublasLtMatrixLayoutCreate(&lw, CUDA_R_32F, K, N, K));
    CHECK(cublasLtMatrixLayoutCreate(&lx, CUDA_R_32F, K, M, K));
    CHECK(cublasLtMatrixLayoutCreate(&ly, CUDA_R_32F, N, M, N));
    CHECK(cublasLtMatmul(lt, product, &one, w, lw, x, lx, &zero, y, ly, y, ly, NULL, NULL, 0, s));
    CHECK(cublasLtMatrixLayoutDestroy(lw));
    CHECK(cublasLtMatrixLayoutDestroy(lx));
    CHECK(cublasLtMatrixLayoutDestroy(ly));
    CHECK(cublasLtMatmulDescDestroy(product));
}

static float *upload(const float *values, size_t count, cudaStream_t s)
{
    void *p;
    CHECK(cudaMalloc(&p, count * sizeof *values));
    CHECK(cudaMemcpyAsync(p, values, count * sizeof *values, cudaMemcpyHostToDevice, s));
    return p;
}

/* Largest difference of the sum over all ranks' products. */
static double check(const float *sum)
{
    double worst = 0;
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            double want = 0;
            for (int r = 0; r < size; r++)
                for (int k = 0; k < K; k++) want += (double)x_at(r, i, k) * w_at(j, k);
            double error = fabs(sum[i * N + j] - want);
            if (!(error <= worst)) worst = error;
        }
    return worst;
}

int main(int argc, char **argv)
{
    const char *bug = argc > 1 ? argv[1] : "ordered";
    static float x[M * K], w[N * K], got[M * N], sum[M * N];
    CHECK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    CHECK(cudaSetDevice(rank));
    ncclUniqueId id;
    ncclComm_t comm;
    if (rank == 0) CHECK(ncclGetUniqueId(&id));
    MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
    CHECK(ncclCommInitRank(&comm, size, id, rank));
    cublasLtHandle_t lt;
    cudaStream_t compute, move;
    cudaEvent_t ready;
    CHECK(cublasLtCreate(&lt));
    CHECK(cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking));
    CHECK(cudaStreamCreateWithFlags(&move, cudaStreamNonBlocking));
    CHECK(cudaEventCreateWithFlags(&ready, cudaEventDisableTiming));

    for (int i = 0; i < M * K; i++) x[i] = x_at(rank, i / K, i % K);
    for (int i = 0; i < N * K; i++) w[i] = w_at(i / K, i % K);
    float *dx = upload(x, M * K, compute), *dw = upload(w, N * K, compute);
    void *now, *next;
    CHECK(cudaMalloc(&now, sizeof got));
    CHECK(cudaMalloc(&next, sizeof got));
    multiply(lt, dx, dw, now, compute);
    CHECK(cudaEventRecord(ready, compute));
    if (strcmp(bug, "unordered")) CHECK(cudaStreamWaitEvent(move, ready, 0));
    for (int hop = 0; hop < size; hop++) {
        CHECK(ncclGroupStart());
        CHECK(ncclSend(now, M * N, ncclFloat32, (rank + 1) % size, comm, move));
        CHECK(ncclRecv(next, M * N, ncclFloat32, (rank + size - 1) % size, comm, move));
        CHECK(ncclGroupEnd());
        CHECK(cudaMemcpyAsync(got, next, sizeof got, cudaMemcpyDeviceToHost, move));
        CHECK(cudaStreamSynchronize(move));
        for (int i = 0; i < M * N; i++) sum[i] += got[i];
        void *swap = now;
        now = next;
        next = swap;
    }
    if (!strcmp(bug, "unguarded")) sum[0] += *(volatile float *)now;
    double error = check(sum);
    printf("%s\n", error < 1e-3 ? "good" : "wrong");
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaFree(dx) || cudaFree(dw) || cudaFree(now) || cudaFree(next));
    CHECK(cudaEventDestroy(ready));
    CHECK(cudaStreamDestroy(compute) || cudaStreamDestroy(move));
    CHECK(cublasLtDestroy(lt));
    CHECK(ncclCommDestroy(comm));
    MPI_Finalize();
    return 0;
}
