/* For the tests: settings are read once per process, so each set of them gets a process. */
#ifndef RINGREEL_EMULATION_HARNESS_H
#define RINGREEL_EMULATION_HARNESS_H

#include "tests/emulation/grid.h"

#include <cuda_runtime_api.h>

#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include <cmocka.h>
}

struct Outcome {
    int code;         /* exit code, or minus the signal */
    std::string said; /* on stderr */
};

/* In a process of its own: ends it where the condition does not hold. */
#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* ... or where a call gives another error than this one. */
#define GIVES(error, call)                                                                         \
    do {                                                                                           \
        cudaError_t got_ = (call);                                                                 \
        if (got_ != (error)) {                                                                     \
            fprintf(stderr, "%s:%d: %s gave %s\n", __FILE__, __LINE__, #call,                      \
                    cudaGetErrorName(got_));                                                       \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)
#define OK(call) GIVES(cudaSuccess, call)

/* Runs `body` with settings such as "STREAMS=fifo" (RINGREEL_EMULATION_STREAMS). */
inline Outcome in_process(std::initializer_list<std::string> settings,
                          const std::function<void()> &body)
{
    int ends[2];
    if (pipe(ends)) abort();
    pid_t child = fork();
    if (child < 0) abort();
    if (child == 0) {
        /* cmocka's handlers would go on with the tests that follow */
        for (int deadly : {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE}) signal(deadly, SIG_DFL);
        alarm(60);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        for (const std::string &s : settings) {
            size_t equal = s.find('=');
            setenv(("RINGREEL_EMULATION_" + s.substr(0, equal)).c_str(), s.c_str() + equal + 1, 1);
        }
        body();
        fflush(stderr);
        _exit(0);
    }
    close(ends[1]);
    Outcome outcome = {0, ""};
    char text[4096];
    for (ssize_t n; (n = read(ends[0], text, sizeof text)) > 0;)
        outcome.said.append(text, (size_t)n);
    close(ends[0]);
    int status;
    if (waitpid(child, &status, 0) != child) abort();
    outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    return outcome;
}

inline void succeeds(std::initializer_list<std::string> settings, const std::function<void()> &body)
{
    Outcome outcome = in_process(settings, body);
    if (outcome.code != 0) print_message("%s", outcome.said.c_str());
    assert_int_equal(outcome.code, 0);
}

/* Ends badly and says something that contains `text`. */
inline void fails_saying(const char *text, std::initializer_list<std::string> settings,
                         const std::function<void()> &body)
{
    Outcome outcome = in_process(settings, body);
    if (outcome.said.find(text) == std::string::npos) print_message("%s", outcome.said.c_str());
    assert_int_not_equal(outcome.code, 0);
    assert_true(outcome.said.find(text) != std::string::npos);
}

/* A kernel of one thread. */
inline cudaError_t kernel(cudaStream_t stream, std::function<void()> body)
{
    return emulation::enqueue(stream, {"test", dim3(1), dim3(1), 0, std::move(body)});
}

template <class T> T *device_array(size_t count)
{
    void *p;
    OK(cudaMalloc(&p, count * sizeof(T)));
    return (T *)p;
}

template <class T> T read_back(const T *device)
{
    T value;
    OK(cudaMemcpy(&value, device, sizeof value, cudaMemcpyDeviceToHost));
    return value;
}

#endif
