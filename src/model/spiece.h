/* spiece.model: the SentencePiece model file, read and checked (spec transformer 6.1, 6.2). The
 * sentencepiece library was written for files of its own trainer: it follows indices of a broken
 * file out of its arrays and ends the program where it notices. So everything it would trust is
 * checked here first. */
#ifndef RINGREEL_SPIECE_H
#define RINGREEL_SPIECE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct spiece {
    unsigned char *proto; /* pieces, trainer_spec and normalizer_spec only; no other field reaches
                             the library */
    size_t bytes;
    int32_t count;         /* pieces; a piece's index is its token id */
    int32_t eos, pad, unk; /* ids of "</s>", "<pad>" (-1: none) and the unknown piece */
};

/* STATUS_INPUT naming the file and what is wrong with it. */
int spiece_read(struct spiece *s, const char *path);
void spiece_free(struct spiece *s);

#endif
