#include "model/spm.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <memory>
#include <vector>

struct spm {
    sentencepiece::SentencePieceProcessor processor;
};

/* Runs `body`; an exception becomes its text and `failed`, since none may enter C. */
template <typename Result, typename Body>
static Result guarded(Result failed, char *error, size_t error_size, Body body)
{
    try {
        return body();
    } catch (const std::exception &e) {
        std::snprintf(error, error_size, "%s", e.what());
    } catch (...) {
        std::snprintf(error, error_size, "unknown exception");
    }
    return failed;
}

extern "C" struct spm *spm_open(const void *proto, size_t bytes, char *error, size_t error_size)
{
    return guarded<struct spm *>(
        nullptr, error, error_size, [&]() -> struct spm * {
            auto s = std::make_unique<struct spm>();
            auto status =
                s->processor.LoadFromSerializedProto({static_cast<const char *>(proto), bytes});
            if (status.ok()) return s.release();
            std::snprintf(error, error_size, "%s", status.error_message());
            return nullptr;
        });
}

extern "C" void spm_close(struct spm *s) { delete s; }

extern "C" int spm_encode(const struct spm *s, const char *text, size_t bytes, int32_t *ids,
                          int capacity, char *error, size_t error_size)
{
    return guarded(-1, error, error_size, [&]() -> int {
        std::vector<int> all;
        auto status = s->processor.Encode({text, bytes}, &all);
        if (!status.ok()) {
            std::snprintf(error, error_size, "%s", status.error_message());
            return -1;
        }
        int count = static_cast<int>(std::min<size_t>(all.size(), static_cast<size_t>(capacity)));
        std::copy_n(all.begin(), count, ids);
        return count;
    });
}
